"""A page as a reader and a browser get it."""

import re
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tags with their attributes, tables as lists of rows, and the visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self._in_cell = self._in_style = False
        self.feed(self.html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._in_cell = tag in ("td", "th") or (self._in_cell and tag not in ("tr", "table", "p"))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            return
        self.words.append(data)
        if self._in_cell:
            self.tables[-1][-1][-1] += data

    @property
    def images(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
