"""Whatever is done to an audit log after it was written is found."""

import hashlib
import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stsmm_core.audit import chain
from stsmm_core.audit.chain import AuditError, append, head, head_file, read, verify

LINES = 5


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "audit.jsonl"
    for number in range(LINES):
        append(path, {"site": "leiden", "number": number})
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[bytes, bytes]:
    """A log and the file that counts its lines."""
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    for number in range(LINES):
        append(path, {"site": "münchen", "number": number, "fields": {"loss": [2, 3]}})
    return path.read_bytes(), head_file(path).read_bytes()


def verify_copy(content: bytes, counted: bytes | None) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        path.write_bytes(content)
        if counted is not None:
            head_file(path).write_bytes(counted)
        return verify(path)


def test_the_chain_is_what_the_docs_say(log):
    lines = log.read_bytes().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines]
    assert [entry["number"] for entry in entries] == [*range(LINES)]
    assert [entry["previous"] for entry in entries] == [
        "0" * 64,
        *(hashlib.sha256(line).hexdigest() for line in lines[:-1]),
    ]
    assert all(entry["time"].endswith("+00:00") for entry in entries)
    assert read(log) == tuple(entries)
    assert verify(log) == LINES
    assert head(log) == chain.Head(LINES, hashlib.sha256(lines[-1]).hexdigest())


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0), byte=st.integers(1, 255))
def test_any_changed_byte_is_found(written, position, byte):
    content, counted = written
    changed = bytearray(content)
    changed[position % len(content)] ^= byte
    with pytest.raises(AuditError, match="line"):
        verify_copy(bytes(changed), counted)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0), byte=st.integers(1, 255))
def test_any_changed_byte_of_the_count_is_found(written, position, byte):
    content, counted = written
    changed = bytearray(counted)
    changed[position % len(counted)] ^= byte
    with pytest.raises(AuditError):
        verify_copy(content, bytes(changed))


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, LINES - 1), length=st.integers(1, LINES))
def test_removed_lines_are_found_and_the_first_gap_is_named(written, start, length):
    content, counted = written
    lines = content.splitlines(keepends=True)
    del lines[start : start + length]
    with pytest.raises(AuditError, match=f"line {start + 1} "):
        verify_copy(b"".join(lines), counted)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0))
def test_a_log_cut_at_any_byte_is_found(written, length):
    content, counted = written
    with pytest.raises(AuditError):
        verify_copy(content[: length % len(content)], counted)


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(LINES)))
def test_moved_lines_are_found(written, order):
    content, counted = written
    lines = content.splitlines(keepends=True)
    moved = b"".join(lines[number] for number in order)
    if list(order) == [*range(LINES)]:
        assert verify_copy(moved, counted) == LINES
    else:
        with pytest.raises(AuditError, match="line"):
            verify_copy(moved, counted)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, LINES), source=st.integers(0, LINES - 1))
def test_an_inserted_line_is_found(written, place, source):
    content, counted = written
    lines = content.splitlines(keepends=True)
    lines.insert(place, lines[source])
    with pytest.raises(AuditError, match="line"):
        verify_copy(b"".join(lines), counted)


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, LINES))
def test_a_well_chained_line_that_was_inserted_is_found(written, place):
    content, counted = written
    lines = content.splitlines(keepends=True)
    before = hashlib.sha256(lines[place - 1]).hexdigest() if place else "0" * 64
    lines.insert(place, json.dumps({"time": "now", "site": "nobody", "previous": before}).encode() + b"\n")
    with pytest.raises(AuditError, match=f"line {place + (1 if place == LINES else 2)} "):
        verify_copy(b"".join(lines), counted)


def test_without_the_count_the_chain_cannot_be_trusted(written):
    content, _ = written
    with pytest.raises(AuditError, match=r"audit\.jsonl\.head beside it is missing or damaged"):
        verify_copy(content, None)


def test_a_noted_hash_stays_good_while_lines_are_added_and_shows_a_new_log(log, tmp_path):
    noted = head(log).sha256
    append(log, {"site": "leiden", "number": LINES})
    assert verify(log, noted) == LINES + 1
    forged = tmp_path / "forged" / "audit.jsonl"
    for number in range(LINES + 1):
        append(forged, {"site": "leiden", "number": number + 1})
    assert verify(forged) == LINES + 1
    with pytest.raises(AuditError, match=noted):
        verify(forged, noted)


def test_a_line_cut_off_by_a_power_cut_is_named_and_noted_by_the_next(log):
    with log.open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "site": "le')
    with pytest.raises(AuditError, match=f"line {LINES + 1} was not finished"):
        verify(log)
    assert len(read(log)) == LINES
    append(log, {"site": "leiden", "number": LINES})
    note, added = read(log)[-2:]
    assert (note["chain"], note["torn"]) == ("interrupted", '{"time": "2026-01-01T00:00:00+00:00", "site": "le')
    assert added["number"] == LINES
    assert verify(log) == LINES + 2


@pytest.mark.parametrize("lines", [0, LINES])
def test_a_power_cut_between_line_and_count_is_noted_and_loses_nothing(tmp_path, lines, monkeypatch):
    path = tmp_path / "audit.jsonl"
    for number in range(lines):
        append(path, {"number": number})
    with monkeypatch.context() as patched:
        patched.setattr(chain, "_write_head", lambda *_: None)
        append(path, {"number": lines})
    with pytest.raises(AuditError):
        verify(path)
    append(path, {"number": lines + 1})
    assert [entry.get("number") for entry in read(path)] == [*range(lines + 1), None, lines + 1]
    assert (read(path)[-2]["chain"], read(path)[-2]["not_counted"]) == ("interrupted", 1)
    assert verify(path) == lines + 3


@pytest.mark.parametrize(
    "harm",
    [
        lambda log: log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2])),
        lambda log: log.write_bytes(log.read_bytes().replace(b"leiden", b"berlin")),
        lambda log: log.unlink(),
        lambda log: head_file(log).unlink(),
    ],
    ids=["tail removed", "changed", "removed", "count removed"],
)
def test_lines_that_are_added_do_not_hide_what_was_done_before(log, harm):
    harm(log)
    append(log, {"site": "leiden", "number": LINES})
    append(log, {"site": "leiden", "number": LINES + 1})
    assert [entry["chain"] for entry in read(log) if "chain" in entry] == ["broken"]
    with pytest.raises(AuditError, match="line"):
        verify(log)


def _append_many(path: Path, writer: int) -> None:
    for number in range(20):
        append(path, {"writer": writer, "number": number})


def test_processes_that_write_at_the_same_time_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    writers = [multiprocessing.get_context("spawn").Process(target=_append_many, args=(path, each)) for each in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert verify(path) == 40
    for each in (0, 1):
        assert [entry["number"] for entry in read(path) if entry["writer"] == each] == [*range(20)]


def test_long_lines_are_chained_too(tmp_path):
    path = tmp_path / "audit.jsonl"
    for length in (5000, 20_000, 1):
        append(path, {"reason": "x" * length})
    assert verify(path) == 3


def test_the_chains_own_keys_are_its_own(tmp_path):
    with pytest.raises(ValueError, match="previous"):
        append(tmp_path / "audit.jsonl", {"previous": "x"})


def test_a_log_that_cannot_be_written_says_what_to_do(log, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(AuditError, match="No space left on device"):
            append(log, {"site": "leiden"})
    append(log, {"site": "leiden", "number": LINES})
    assert verify(log) == LINES + 3


def test_a_file_that_is_no_log_is_named(tmp_path):
    with pytest.raises(AuditError, match="cannot be read"):
        verify(tmp_path / "audit.jsonl")
