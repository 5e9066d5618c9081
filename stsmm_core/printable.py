"""Text that somebody else wrote, for a terminal."""


def printable(line: str) -> str:
    """A line without control characters, which could erase or recolour what stands around it; ? stands for each."""
    return "".join(character if character.isprintable() else "?" for character in line)
