import errno
import hashlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from plain_imaging import imaging, named

from stsmm_core.config import Augmentation
from stsmm_core.errors import CohortError, RunError
from stsmm_core.imaging import cache as cache_module
from stsmm_core.imaging.cache import cached_patient
from stsmm_core.imaging.preprocess import prepare_patient, preprocess_patient, read_images, run_steps
from stsmm_core.imaging.quality import measure

CONFIG = imaging(shape=(16, 16, 16), margin_mm=3)


def cached_tensor(cache, channels, mask, config):
    return cached_patient(cache, channels, mask, config).tensor


@pytest.fixture
def patient(tmp_path, phantoms):
    """Two channels and a mask, in a folder that carries the patient's identifier."""
    grid = phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0))
    folder = tmp_path / "images" / "STS_004"
    channels = [
        grid.write(folder / "t1.nii.gz", phantoms.ramp((1, 2, 3))),
        grid.write(folder / "t2.nii.gz", phantoms.blob((1, 2, 3), 8)),
    ]
    return named(channels), grid.write(folder / "t1_mask.nii.gz", phantoms.box((10, 12, 14)))


@pytest.fixture
def computed(monkeypatch):
    """How often a tensor was really computed."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return run_steps(*arguments)

    monkeypatch.setattr(cache_module, "run_steps", counted)
    return calls


def test_second_time_from_disk(tmp_path, patient, computed):
    first = cached_tensor(tmp_path / "cache", *patient, CONFIG)
    second = cached_tensor(tmp_path / "cache", *patient, CONFIG)
    assert len(computed) == 1
    np.testing.assert_array_equal(first, preprocess_patient(*patient, CONFIG))
    np.testing.assert_array_equal(second, first)
    assert second.dtype == np.float32
    assert second.flags.writeable


def test_quality_is_kept_with_the_tensor(tmp_path, patient, computed):
    first = cached_patient(tmp_path / "cache", *patient, CONFIG).quality
    second = cached_patient(tmp_path / "cache", *patient, CONFIG).quality
    assert len(computed) == 1
    assert second == first == measure(read_images(*patient), prepare_patient(*patient, CONFIG))


def test_file_names_do_not_tell_of_a_patient(tmp_path, patient):
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.suffix == ".npy"
    assert len(bytes.fromhex(file.stem)) == 32
    assert file.stat().st_mode & 0o077 == 0


def test_numpy_alone_can_read_it(tmp_path, patient):
    tensor = cached_tensor(tmp_path / "cache", *patient, CONFIG)
    (file,) = (tmp_path / "cache").iterdir()
    np.testing.assert_array_equal(np.load(file), tensor)


@pytest.mark.parametrize("changed", ["t1", "t2", "mask"])
def test_changed_input_is_not_reused(tmp_path, patient, phantoms, computed, changed):
    channels, mask = patient
    before = cached_tensor(tmp_path / "cache", channels, mask, CONFIG)
    path = mask if changed == "mask" else channels[changed]
    stamp = path.stat()
    field = phantoms.box((14, 12, 10)) if changed == "mask" else phantoms.ramp((3, -1, 1))
    phantoms.grid((24, 24, 12), (1.0, 1.0, 2.0)).write(path, field)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = cached_tensor(tmp_path / "cache", channels, mask, CONFIG)
    assert len(computed) == 2
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("update", [{"shape": (16, 16, 20)}, {"margin_mm": 3.5}])
def test_changed_setting_is_not_reused(tmp_path, patient, computed, update):
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    changed = CONFIG.model_copy(update=update)
    after = cached_tensor(tmp_path / "cache", *patient, changed)
    assert len(computed) == 2
    np.testing.assert_array_equal(after, preprocess_patient(*patient, changed))


def test_changed_version_is_not_reused(tmp_path, patient, computed, monkeypatch):
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    monkeypatch.setattr(cache_module, "PREPROCESSING_VERSION", cache_module.PREPROCESSING_VERSION + 1)
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    assert len(computed) == 2


def test_order_and_number_of_channels_count(tmp_path, patient, computed):
    channels, mask = patient
    both = cached_tensor(tmp_path / "cache", channels, mask, CONFIG)
    swapped = cached_tensor(tmp_path / "cache", dict(reversed(channels.items())), mask, CONFIG)
    one = cached_tensor(tmp_path / "cache", {"t1": channels["t1"]}, mask, CONFIG)
    assert len(computed) == 3
    np.testing.assert_array_equal(swapped, both[::-1])
    np.testing.assert_array_equal(one, both[:1])


def test_augmentation_is_none_of_its_business(tmp_path, patient, computed):
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    other = CONFIG.model_copy(update={"augmentation": Augmentation(flip=False, rotation_degrees=90, zoom=0.5)})
    cached_tensor(tmp_path / "cache", *patient, other)
    assert len(computed) == 1


def test_same_content_elsewhere_is_reused(tmp_path, patient, computed):
    channels, mask = patient
    cached_tensor(tmp_path / "cache", channels, mask, CONFIG)
    moved = mask.parent.rename(mask.parent.with_name("another"))
    cached_tensor(
        tmp_path / "cache", named([moved / path.name for path in channels.values()]), moved / mask.name, CONFIG
    )
    assert len(computed) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:0],
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[:-32],
        lambda content: content[:4000] + bytes([content[4000] ^ 1]) + content[4001:],
        lambda content: content + b"\0",
    ],
    ids=["empty", "in the header", "one byte", "checksum missing", "one bit", "longer"],
)
def test_a_damaged_file_is_made_again(tmp_path, patient, computed, spoil):
    whole = cached_tensor(tmp_path / "cache", *patient, CONFIG)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    np.testing.assert_array_equal(cached_tensor(tmp_path / "cache", *patient, CONFIG), whole)
    assert len(computed) == 2
    cached_tensor(tmp_path / "cache", *patient, CONFIG)
    assert len(computed) == 2, "the mended file should be good again"


def test_an_interrupted_write_leaves_nothing(tmp_path, patient, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached_tensor(tmp_path / "cache", *patient, CONFIG)
    assert list((tmp_path / "cache").iterdir()) == []
    assert cached_tensor(tmp_path / "cache", *patient, CONFIG).shape == (2, 16, 16, 16)


def test_missing_input(tmp_path, patient):
    channels, mask = patient
    channels["t2"].unlink()
    with pytest.raises(CohortError, match=r"t2\.nii\.gz: cannot be read \(No such file"):
        cached_tensor(tmp_path / "cache", channels, mask, CONFIG)


def test_a_cache_that_is_no_folder(tmp_path, patient):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(RunError, match="cache: the image cache cannot be read"):
        cached_tensor(tmp_path / "cache", *patient, CONFIG)


def test_a_full_disk(tmp_path, patient, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"cache: the image cache cannot be written \(No space left"):
        cached_tensor(tmp_path / "cache", *patient, CONFIG)
    assert list((tmp_path / "cache").iterdir()) == []


def _fill(barrier, results, folder, channels, mask):
    digest = hashlib.sha256()
    for margin in range(4):
        barrier.wait(timeout=60)
        config = CONFIG.model_copy(update={"margin_mm": float(margin)})
        digest.update(cached_tensor(Path(folder), channels, mask, config).tobytes())
    results.put(digest.hexdigest())


def test_two_processes_at_once(tmp_path, patient):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (barrier, results, str(tmp_path / "cache"), *patient)
    workers = [context.Process(target=_fill, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    digests = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    expected = hashlib.sha256()
    for margin in range(4):
        expected.update(preprocess_patient(*patient, CONFIG.model_copy(update={"margin_mm": float(margin)})).tobytes())
    assert digests == [expected.hexdigest()] * 2
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(file.suffix for file in (tmp_path / "cache").iterdir()) == [".npy"] * 4
