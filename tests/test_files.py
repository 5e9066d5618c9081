import multiprocessing
import os

import numpy as np
import pytest

from stsmm_core.files import write_atomically, write_text_atomically
from stsmm_core.seeds import derive_seed, generator


def test_text_is_written_as_utf8_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "folder" / "note.txt"
    write_text_atomically(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["note.txt"]


def test_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomically(path, "a long first version")
    write_text_atomically(path, "second")
    assert path.read_text() == "second"


def test_a_failed_write_leaves_the_old_file_and_no_half(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomically(path, "whole")

    def fail(temporary):
        temporary.write_text("hal")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "note.txt", lambda _: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_lies_beside_and_keeps_the_suffix(tmp_path):
    seen = []

    def write(temporary):
        seen.append(temporary)
        np.save(temporary, np.arange(3))  # numpy appends .npy to any other name

    write_atomically(tmp_path / "array.npy", write)
    assert seen[0].parent == tmp_path
    assert seen[0] != tmp_path / "array.npy"
    assert np.load(tmp_path / "array.npy").tolist() == [0, 1, 2]


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    path = tmp_path / "note.txt"
    write_atomically(path, lambda temporary: (temporary.write_text("x"), (tmp_path / "seen").touch(), path.exists()))
    assert path.exists()

    def check(temporary):
        temporary.write_text("new")
        assert path.read_text() == "x"

    write_atomically(path, check)


def test_who_is_reading_goes_on_with_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomically(path, "old")
    with path.open() as reader:
        write_text_atomically(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def die_while_writing(path):
    def write(temporary):
        temporary.write_text("hal")
        os._exit(1)

    write_atomically(path, write)


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomically(path, "whole")
    process = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert path.read_text() == "whole"


def test_seeds_depend_on_every_part_and_their_order():
    parts = [
        (0,),
        (0, 0),
        (0, 0, 0),
        (1,),
        (1, 0),
        (0, 1),
        (0, "a"),
        (0, "b"),
        ("a", 0),
        (0, "a", 1),
        (0, "a", 2),
        (1, "a", 2),
        (2, "a", 1),
        ("ab",),
    ]
    assert len({derive_seed(*each) for each in parts}) == len(parts)


def test_seeds_are_the_same_in_every_process():
    # A fixed number: were it to change, a resumed run would go on with other draws and every split would be another.
    assert derive_seed(42, "split", "north") == 5160698854147942516


def test_seeds_fit_torch_and_numpy():
    seeds = [derive_seed(number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**61
    assert len(set(seeds)) == 200


def test_generators_are_independent_streams():
    first, again, other = (generator(0, name).normal(size=2000) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1
