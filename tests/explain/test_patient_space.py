import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.text import Text

from stsmm_core.config import Imaging
from stsmm_core.explain.cases import pick_cases
from stsmm_core.explain.explanations import explain_network, write_case
from stsmm_core.explain.grad_cam import Block, HeatMaps
from stsmm_core.explain.overlay import overlay_figure, resolution_line
from stsmm_core.explain.patient_space import channel_to_show, to_patient_space

SIDE = 32
CENTRE = np.array([12.0, -30.0, 45.0])
IMAGING = Imaging(shape=(SIDE, SIDE, SIDE), margin_mm=8.0, steps=("resampling", "zscore"))


def write(path, size, spacing, direction, inside):
    """A box about CENTRE (`inside`, half widths in mm) on a grid whose middle is off the centre."""
    spacing, direction = np.array(spacing), np.array(direction).reshape(3, 3)
    origin = CENTRE + 3.0 - direction @ (spacing * (np.array(size) - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    points = origin + (index * spacing) @ direction.T
    values = (np.abs(points - CENTRE) < np.array(inside)).all(axis=-1).T.astype(np.float32)
    image = sitk.GetImageFromArray(100 * values + np.arange(values.size, dtype=np.float32).reshape(values.shape) % 7)
    if path.name.endswith("mask.nii.gz"):
        image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def files(tmp_path):
    """T1 with a turned grid and its mask; T2 straight, of other spacing."""
    turned = (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
    straight = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    tumour = (14, 10, 12)
    mask = write(tmp_path / "t1_mask.nii.gz", (60, 60, 30), (1.0, 1.0, 2.0), turned, tumour)
    channels = {
        "t1": write(tmp_path / "t1.nii.gz", (60, 60, 30), (1.0, 1.0, 2.0), turned, tumour),
        "t2": write(tmp_path / "t2.nii.gz", (50, 44, 24), (1.3, 1.3, 2.5), straight, tumour),
    }
    return channels, mask


def spot(block, place):
    """Maps of one patient with a single bright voxel, (d, h, w)."""
    native = np.zeros((1, *(SIDE // block.step,) * 3), dtype=np.float32)
    native[(0, *place)] = 2.0
    return HeatMaps(block, native, (SIDE, SIDE, SIDE))


def centre_of(volume):
    """Centre of mass in the patient's space, mm."""
    values = np.nan_to_num(volume.array).astype(float)
    index = np.stack(np.nonzero(values))[::-1].T
    points = np.array(volume.geometry.origin) + (index * np.array(volume.geometry.spacing_mm)) @ volume.geometry.axes.T
    weights = values[np.nonzero(values)]
    return (points * weights[:, None]).sum(axis=0) / weights.sum()


@pytest.mark.parametrize("place", [(3, 4, 3), (4, 3, 5)])
def test_a_bright_voxel_lies_at_one_place_on_every_grid(files, place):
    channels, mask = files
    found = to_patient_space(spot(Block(1), place), 0, channels=channels, mask=mask, config=IMAGING)
    assert found.channel == "t2"
    geometry = found.tensor_heat.geometry
    tensor_voxel = np.array(place[::-1]) * Block(1).step + Block(1).start
    expected = np.array(geometry.origin) + geometry.axes @ (tensor_voxel * np.array(geometry.spacing_mm))
    np.testing.assert_allclose(centre_of(found.native), expected, atol=1e-6)
    np.testing.assert_allclose(centre_of(found.tensor_heat), expected, atol=1e-4)
    np.testing.assert_allclose(centre_of(found.heat), expected, atol=0.4)  # a third of a voxel of T2
    assert found.heat.geometry == found.image.geometry
    np.testing.assert_allclose(centre_of_mask(found), CENTRE, atol=1.0)  # slices of 2.5 mm


def centre_of_mask(found):
    index = np.argwhere(found.tumour)[:, ::-1].mean(axis=0)
    geometry = found.image.geometry
    return np.array(geometry.origin) + geometry.axes @ (index * np.array(geometry.spacing_mm))


def test_the_map_is_aligned_with_the_tensor_that_the_network_saw(files):
    from stsmm_core.imaging.preprocess import prepare_patient

    channels, mask = files
    found = to_patient_space(spot(Block(1), (3, 3, 3)), 0, channels=channels, mask=mask, config=IMAGING)
    assert found.tensor_heat.geometry == prepare_patient(channels, mask, IMAGING).tumour.geometry


@pytest.mark.parametrize(
    ("channels", "mri", "shown"),
    [
        (("t1", "t2", "pet"), ("t1", "t2"), "t2"),
        (("t1", "flair", "pet"), ("t1", "flair"), "flair"),
        (("pet", "ct"), ("t1", "t2"), "pet"),
    ],
)
def test_which_channel_is_shown(channels, mri, shown):
    assert channel_to_show(channels, mri) == shown


def texts(figure):
    return [each.get_text() for each in figure.findobj(Text)]


def test_the_figure_says_what_it_shows(files):
    channels, mask = files
    found = to_patient_space(spot(Block(2), (1, 2, 1)), 0, channels=channels, mask=mask, config=IMAGING)
    figure = overlay_figure(found, title="death, case 3: high risk", risk="predicted 5-year risk 62 %")
    shown = " ".join(texts(figure))
    native = found.native.geometry.spacing_mm[0]
    assert f"map 4x4x4 voxels, {native:.0f} mm" in shown
    assert "death, case 3" in shown
    assert "62 %" in shown
    first, heat, merged = figure.axes[:3]
    assert (len(first.images), len(heat.images), len(merged.images)) == (1, 1, 2)
    assert all(axes.collections for axes in (first, heat, merged))  # the outline
    plane = heat.images[0].get_array()
    index = round(np.argwhere(found.tumour)[:, 0].mean())
    assert any(np.array_equal(plane, np.nan_to_num(found.heat.array[each])) for each in (index - 1, index, index + 1))
    assert plane.max() > 0


def test_an_empty_map_is_called_empty(files):
    channels, mask = files
    nothing = HeatMaps(Block(2), np.zeros((1, 4, 4, 4), dtype=np.float32), (SIDE, SIDE, SIDE))
    found = to_patient_space(nothing, 0, channels=channels, mask=mask, config=IMAGING)
    assert resolution_line(found).endswith("; empty")
    overlay_figure(found, title="case 1", risk="").savefig("/dev/null", format="png")


def test_a_case_is_written_the_same_way_twice(files, tmp_path):
    channels, mask = files
    found = to_patient_space(spot(Block(2), (1, 2, 1)), 0, channels=channels, mask=mask, config=IMAGING)
    digests = []
    for name in ("a", "b"):
        page = write_case(tmp_path / name, found, name="case_1_os", title="case 1", risk="high")
        assert page.read_bytes().startswith(b"\x89PNG")
        written = sorted((tmp_path / name).iterdir())
        assert [path.name for path in written] == [
            "case_1_os.png",
            "case_1_os_heat.nii.gz",
            "case_1_os_heat_native.nii.gz",
            "case_1_os_heat_on_t2.nii.gz",
        ]
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in written])
        over = sitk.ReadImage(str(written[3]))
        assert over.GetSize() == sitk.ReadImage(str(channels["t2"])).GetSize()
        np.testing.assert_allclose(over.GetOrigin(), sitk.ReadImage(str(channels["t2"])).GetOrigin(), atol=1e-4)
    assert digests[0] == digests[1]


def test_all_explanations_of_a_network(network, experiment, data, encoding):
    rows, training = np.array([1, 2, 3, 5]), np.array([0, 3, 4])
    found = explain_network(network, experiment, data, encoding, rows=rows, training_rows=training)
    assert found.with_image.tolist() == [1, 3, 5]
    assert found.with_clinical.tolist() == [1, 2, 3]
    assert list(found.endpoints) == ["os", "dm"]
    for explained in found.endpoints.values():
        assert explained.maps.native.shape == (3, 8, 8, 8)
        assert explained.clinical.values.shape == (3, 3)
        assert len(explained.sanity) == 6
    assert len(pick_cases(np.zeros(0), time=np.zeros(0), event=np.zeros(0), horizon_days=1)) == 0
