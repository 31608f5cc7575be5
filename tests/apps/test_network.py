import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import HU_WINDOW, MultitaskThreshold, write_oracle_bundle
from scipy import ndimage

from ct_triage.errors import ModelError
from ct_triage.lesions import MultitaskLesionModel
from ct_triage.network import AxialView, SliceNetwork, box_of
from ct_triage.volume import Volume

SHAPE = (3, 4, 5)


def _volume(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> Volume:
    """A volume whose slice, row and column axes run along the given patient axes."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for index_axis, (patient_axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[patient_axis, index_axis] = sign * (index_axis + 1.0)
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return Volume(voxels, affine, ())


ORIENTATIONS = list(
    itertools.product(itertools.permutations((0, 1, 2)), itertools.product((1, -1), repeat=3))
)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_view_is_radiological_and_returns_to_the_source(
    axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    volume = _volume(axes, signs)
    view = AxialView.of(volume)

    # Slices to the head, rows to the back, columns to the left: all positive in LPS.
    direction = view.affine[:3, :3] @ np.fliplr(np.eye(3))
    assert np.allclose(direction, np.diag(view.spacing_mm[::-1]))
    # Every voxel keeps its place in the patient.
    for index in ((0, 0, 0), (2, 1, 3)):
        place = volume.affine @ (*index, 1)
        on_view = np.rint(np.linalg.inv(view.affine) @ place).astype(int)[:3]
        assert view.voxels[tuple(on_view)] == volume.voxels[index]

    mask = volume.voxels % 3 == 0
    assert np.array_equal(view.of_mask(mask), view.voxels % 3 == 0)
    assert np.array_equal(view.on_source_grid(view.of_mask(mask)), mask)


@pytest.fixture
def network(tmp_path: Path) -> SliceNetwork:
    return SliceNetwork.load(write_oracle_bundle(tmp_path / "oracle", threshold_hu=-400.0))


def _axial(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag(spacing_mm[::-1]))
    return Volume(voxels, affine, ())


def test_a_bundle_says_how_it_wants_its_input(network: SliceNetwork) -> None:
    assert network.identity.name == "oracle oracle"
    assert network.identity.version == "1.2.3"
    assert network.hu_window == HU_WINDOW
    assert network.spacing_mm == (2.0, 2.0)


@pytest.mark.parametrize("pixel_mm", [2.0, 1.0, 0.7])
def test_a_square_comes_back_where_it_was(network: SliceNetwork, pixel_mm: float) -> None:
    n_pixels = round(120 / pixel_mm)
    truth = np.zeros((11, n_pixels, n_pixels), bool)
    truth[3:8, n_pixels // 4 : n_pixels // 2, n_pixels // 3 : n_pixels // 2] = True
    view = AxialView.of(_axial(np.where(truth, 200, -1000).astype(np.int16), (5, *[pixel_mm] * 2)))

    mask = network.mask_on_view(network.probabilities(view), view)

    # Corners are rounded by the 2 mm grid, nothing else may differ.
    assert np.count_nonzero(mask != truth) <= 0.05 * np.count_nonzero(truth)
    for axis in range(3):
        middle = np.arange(truth.shape[axis]) + 0.5
        others = tuple(a for a in range(3) if a != axis)
        centre = np.average(middle, weights=mask.sum(others))
        assert centre == pytest.approx(np.average(middle, weights=truth.sum(others)), abs=0.5)


def test_a_region_is_all_that_is_looked_at(network: SliceNetwork) -> None:
    view = AxialView.of(_axial(np.full((9, 32, 32), 200, np.int16), (2, 2, 2)))
    probabilities = network.probabilities(view, (slice(2, 5), slice(3, 20), slice(7, 30)))
    inside = np.zeros((9, 32, 32), bool)
    inside[2:5, 3:20, 7:30] = True
    assert np.array_equal(probabilities >= 0.5, inside)


class Below(torch.nn.Module):
    """Logits that are positive where the first of three channels is bright."""

    def __init__(self, _: float) -> None:
        super().__init__()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[1] == 3
        return 4 * (image[:, :1] - 0.5)


@pytest.mark.parametrize(("slice_mm", "steps"), [(2.0, 2), (3.0, 2), (6.0, 1), (8.0, 1)])
def test_a_network_may_see_the_slices_around_each(
    slice_mm: float, steps: int, tmp_path: Path
) -> None:
    bundle = write_oracle_bundle(tmp_path / "oracle", 0, Below, context_mm=5.0)
    network = SliceNetwork.load(bundle)
    truth = np.zeros((19, 32, 32), bool)
    truth[[0, 3, 11, 12, 18]] = True
    view = AxialView.of(_axial(np.where(truth, 400, -900).astype(np.int16), (slice_mm, 2, 2)))

    # A slice that has none below it sees the lowest one.
    below = truth[np.maximum(np.arange(19) - steps, 0)]
    assert np.array_equal(network.probabilities(view) >= 0.5, below)
    region = (slice(5, 19), slice(4, 20), slice(6, 30))
    assert np.array_equal(network.probabilities(view, region)[region] >= 0.5, below[region])


def test_the_first_and_the_last_slice_stand_for_those_beyond(tmp_path: Path) -> None:
    network = SliceNetwork.load(write_oracle_bundle(tmp_path / "oracle", 0, Below, context_mm=50.0))
    hu = np.broadcast_to(50 * np.arange(9, dtype=np.int16)[:, None, None], (9, 16, 16))
    view = AxialView.of(_axial(hu, (5, 2, 2)))
    low, high = HU_WINDOW
    seen = torch.cat([image[:, :, 0, 0] for _, image in network.images(view)])
    assert ((seen * (high - low) + low) / 50).round().tolist() == [[0, i, 8] for i in range(9)]


@pytest.mark.parametrize("slice_mm", [1.0, 3.0, 6.0])
def test_probabilities_may_be_smoothed_along_the_slices(slice_mm: float, tmp_path: Path) -> None:
    sharp, smooth = (
        SliceNetwork.load(write_oracle_bundle(tmp_path / name, -400.0, **settings))
        for name, settings in (("sharp", {}), ("smooth", {"smooth_slices_mm": 3.0}))
    )
    hu = np.full((20, 32, 32), -900, np.int16)
    hu[[0, 9, 10, 19], 5:25, 5:25] = 400
    view = AxialView.of(_axial(hu, (slice_mm, 2, 2)))
    region = (slice(2, 9) if slice_mm == 1 else slice(4, 19), slice(4, 20), slice(6, 30))
    # Thin slices are taken together to 2 mm.
    sigma = 3.0 / max(slice_mm, 2.0)
    for part in (None, region):
        inside = part or ...
        expected = sharp.probabilities(view, part)
        expected[inside] = ndimage.gaussian_filter1d(
            expected[inside].astype(float), sigma, axis=0, mode="nearest"
        )
        np.testing.assert_allclose(smooth.probabilities(view, part), expected, atol=1e-3)
    # A network that sees all slices together smooths as one that sees them one by one.
    settings = {"smooth_slices_mm": 3.0, "divisor": 1}
    bundle = write_oracle_bundle(tmp_path / "both", -400.0, MultitaskThreshold, **settings)
    together, _ = MultitaskLesionModel.load(bundle, None, 0).predict(view, region)
    np.testing.assert_allclose(together, smooth.probabilities(view, region), atol=1e-3)


def test_smoothing_by_nothing_is_none(network: SliceNetwork, tmp_path: Path) -> None:
    bundle = write_oracle_bundle(tmp_path / "none", -400.0, smooth_slices_mm=0)
    assert SliceNetwork.load(bundle).smooth_slices_mm == network.smooth_slices_mm == 0


@pytest.mark.parametrize(
    ("key", "length_mm"),
    [
        *(("context_mm", value) for value in (0, -5.0, "nan", [5.0], 1e9)),
        *(("smooth_slices_mm", value) for value in (-5.0, "nan", [5.0], 1e9)),
    ],
)
def test_a_length_without_meaning_is_refused(key: str, length_mm: object, tmp_path: Path) -> None:
    bundle = write_oracle_bundle(tmp_path / "oracle", -400.0, **{key: length_mm})
    with pytest.raises(ModelError, match="does not say how to prepare the input"):
        SliceNetwork.load(bundle)


def test_a_missing_or_changed_weight_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.ts: not found"):
        SliceNetwork.load(tmp_path)
    bundle = write_oracle_bundle(tmp_path / "oracle", threshold_hu=-400.0)
    with (bundle / "models" / "model.ts").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ModelError, match="does not match SHA256SUMS"):
        SliceNetwork.load(bundle)


@pytest.mark.parametrize("temperature", [0, -1.0, "nan", None, 1e9])
def test_a_temperature_without_meaning_is_refused(temperature: object, tmp_path: Path) -> None:
    bundle = write_oracle_bundle(tmp_path / "oracle", -400.0, temperature=temperature)
    with pytest.raises(ModelError, match="does not say how to prepare the input"):
        SliceNetwork.load(bundle)


def test_a_bundle_without_a_temperature_has_one(network: SliceNetwork, tmp_path: Path) -> None:
    assert network.temperature == 1
    bundle = write_oracle_bundle(tmp_path / "warm", -400.0, temperature=2.5)
    assert SliceNetwork.load(bundle).temperature == 2.5


@pytest.mark.parametrize("slice_mm", [0.5, 0.7, 1.0])
def test_thin_slices_are_taken_together_and_stay_in_place(
    network: SliceNetwork, slice_mm: float
) -> None:
    n_slices = round(60 / slice_mm)
    truth = np.zeros((n_slices, 40, 40), bool)
    truth[n_slices // 4 : n_slices // 2, 10:30, 8:24] = True
    view = AxialView.of(_axial(np.where(truth, 200, -1000).astype(np.int16), (slice_mm, 2, 2)))

    probabilities = network.probabilities(view)
    mask = network.mask_on_view(probabilities, view)

    assert len(probabilities) == 30
    middle = np.arange(n_slices) + 0.5
    centre = np.average(middle, weights=mask.sum((1, 2)))
    assert centre == pytest.approx(np.average(middle, weights=truth.sum((1, 2))), abs=1.0)
    assert mask.sum() == pytest.approx(truth.sum(), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_box_of_a_mask(seed: int) -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert box_of(mask) is None
    mask.ravel()[np.random.default_rng(seed).choice(mask.size, seed + 1)] = True
    assert box_of(mask) == ndimage.find_objects(mask.view(np.uint8))[0]


def test_a_network_is_frozen(tmp_path: Path) -> None:
    # Else the first two batches wait for the interpreter to optimise it.
    network = SliceNetwork.load(write_oracle_bundle(tmp_path / "oracle", threshold_hu=-400.0))
    assert not list(network.module.parameters())
