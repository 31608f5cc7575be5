"""The phantom's anatomy, truth and physics."""

import numpy as np
import pytest
from scipy import ndimage

from tools.phantom import Grid, Phantom, build_phantom, varied_phantom
from tools.phantom.variation import draw_acquisition

SHAPE = (40, 144, 144)
SPACING = (7.5, 2.7, 2.7)


def centroid(grid: Grid, mask: np.ndarray) -> np.ndarray:
    return grid.to_patient(np.argwhere(mask).mean(axis=0))


def volume_ml(grid: Grid, mask: np.ndarray) -> float:
    return float(mask.sum() * grid.voxel_volume_mm3 / 1000)


@pytest.fixture(scope="module")
def covid() -> Phantom:
    return build_phantom(Grid.axial(SHAPE, SPACING), "covid19", seed=3, severity=0.25)


@pytest.fixture(scope="module")
def normal() -> Phantom:
    return build_phantom(Grid.axial(SHAPE, SPACING), "normal", seed=3)


def test_same_seed_gives_identical_arrays(covid: Phantom) -> None:
    again = build_phantom(covid.grid, "covid19", seed=3, severity=0.25)
    for name in ("hu", "right_lung", "left_lung", "ground_glass", "consolidation"):
        np.testing.assert_array_equal(getattr(again, name), getattr(covid, name))


def test_another_seed_is_another_patient(covid: Phantom) -> None:
    other = build_phantom(covid.grid, "covid19", seed=4, severity=0.25)
    assert abs(volume_ml(covid.grid, other.lung) / volume_ml(covid.grid, covid.lung) - 1) > 0.01


def test_arrays_have_the_grids_shape_and_the_right_types(covid: Phantom) -> None:
    assert covid.hu.dtype == np.int16
    for name in ("hu", "right_lung", "left_lung", "ground_glass", "consolidation"):
        assert getattr(covid, name).shape == SHAPE
        if name != "hu":
            assert getattr(covid, name).dtype == bool


@pytest.mark.parametrize(
    "grid",
    [
        Grid.axial(SHAPE, SPACING, "HFP"),
        Grid.axial(SHAPE, SPACING, "FFS"),
        Grid.axial((56, 110, 150), (5.4, 3.4, 2.5), "FFP"),
        Grid.axial((44, 150, 150), SPACING, rotation_deg=(12, -6, 8)),
        # Coronal planes.
        Grid(
            (90, 110, 144),
            np.array([[0, 0, 2.7, -193], [3, 0, 0, -134], [0, -2.8, 0, 153], [0, 0, 0, 1.0]]),
        ),
    ],
    ids=["prone", "feet first", "feet first prone, non-square", "oblique", "coronal"],
)
def test_the_anatomy_stays_put_in_patient_space(covid: Phantom, grid: Grid) -> None:
    other = build_phantom(grid, "covid19", seed=3, severity=0.25)
    for name in ("right_lung", "left_lung", "lesion"):
        here, there = getattr(covid, name), getattr(other, name)
        away = centroid(covid.grid, here) - centroid(grid, there)
        assert np.abs(away).max() < min(SPACING)
        assert volume_ml(grid, there) == pytest.approx(volume_ml(covid.grid, here), rel=0.03)


def test_the_patients_right_is_at_negative_x(covid: Phantom) -> None:
    assert centroid(covid.grid, covid.right_lung)[0] < -40
    assert centroid(covid.grid, covid.left_lung)[0] > 40


@pytest.mark.parametrize("seed", [0, 1])
def test_each_lung_is_one_piece_of_human_size(seed: int) -> None:
    phantom = build_phantom(Grid.axial(SHAPE, SPACING), "normal", seed=seed)
    for lung in (phantom.right_lung, phantom.left_lung):
        pieces, _ = ndimage.label(lung)
        assert np.bincount(pieces.ravel())[1:].max() > 0.995 * lung.sum()
        assert 700 < volume_ml(phantom.grid, lung) < 4500
    share = phantom.right_lung.sum() / phantom.lung.sum()
    assert 0.5 < share < 0.6


def test_masks_exclude_each_other_and_lie_inside(covid: Phantom) -> None:
    assert not (covid.right_lung & covid.left_lung).any()
    assert not (covid.ground_glass & covid.consolidation).any()
    assert not (covid.lesion & ~covid.lung).any()
    body = ndimage.binary_fill_holes(ndimage.binary_opening(covid.hu[20] > -300, iterations=2))
    assert not (covid.lung[20] & ~body).any()


def test_each_tissue_has_its_hounsfield_units(normal: Phantom) -> None:
    hu, lung = normal.hu, normal.lung
    deep = ndimage.binary_erosion(lung, iterations=2)
    assert -900 < np.median(hu[deep]) < -800
    assert np.median(hu[:, :8, :8]) == pytest.approx(-1000, abs=8)
    assert np.percentile(hu, 99.9) > 350
    soft = hu[(hu > -30) & (hu < 130)]
    assert 35 < np.median(soft) < 65
    fat = hu[(hu > -140) & (hu < -60)]
    assert -115 < np.median(fat) < -85
    # Vessels stand out of the parenchyma.
    assert 0.003 < (hu[deep] > -500).mean() < 0.12


def test_the_airway_is_no_lung(normal: Phantom) -> None:
    index = np.linalg.solve(normal.grid.affine, [2.0, 16.0, 100.0, 1.0])[:3].round().astype(int)
    s, r, c = index
    window = (slice(s, s + 1), slice(r - 4, r + 5), slice(c - 4, c + 5))
    assert normal.hu[window].min() < -900
    assert not normal.lung[window].any()


@pytest.mark.parametrize(("position", "sign"), [("HFS", 1), ("HFP", -1)])
def test_the_dependent_lung_is_denser(position: str, sign: int) -> None:
    grid = Grid.axial((20, 128, 128), (15, 3, 3), position)
    phantom = build_phantom(grid, "normal", seed=3, noise_hu=0)
    deep = np.argwhere(ndimage.binary_erosion(phantom.lung, iterations=2))
    y = grid.to_patient(deep)[:, 1]
    hu = phantom.hu[tuple(deep.T)]
    back, front = (
        np.median(hu[part]) for part in (y > np.quantile(y, 0.7), y < np.quantile(y, 0.3))
    )
    assert 15 < sign * (back - front) < 90


def test_covid_is_peripheral_basal_and_bilateral(covid: Phantom) -> None:
    lung, lesion = covid.lung, covid.lesion
    depth = ndimage.distance_transform_edt(np.pad(lung, 1), sampling=covid.grid.spacing_mm)[
        1:-1, 1:-1, 1:-1
    ]
    assert np.median(depth[lesion]) < np.median(depth[lung])
    assert centroid(covid.grid, lesion)[2] < centroid(covid.grid, lung)[2]
    for side in (covid.right_lung, covid.left_lung):
        assert (lesion & side).sum() > 0.05 * side.sum()
    assert covid.ground_glass.sum() > covid.consolidation.sum() > 0
    assert -720 < np.median(covid.hu[covid.ground_glass]) < -400
    assert -60 < np.percentile(covid.hu[covid.consolidation], 70) < 60


@pytest.mark.parametrize("severity", [0.03, 0.25, 0.6])
@pytest.mark.parametrize("disease", ["covid19", "bacterial"])
def test_the_share_is_near_the_wanted_one(disease: str, severity: float) -> None:
    grid = Grid.axial((24, 96, 96), (12, 4, 4))
    phantom = build_phantom(grid, disease, seed=3, severity=severity)
    share = phantom.lesion.sum() / phantom.lung.sum()
    assert share == pytest.approx(severity, rel=0.15, abs=0.01)


def test_bacterial_is_mostly_consolidation_of_one_side() -> None:
    grid = Grid.axial(SHAPE, SPACING)
    phantom = build_phantom(grid, "bacterial", seed=3, severity=0.12)
    assert phantom.consolidation.sum() > phantom.ground_glass.sum()
    sides = [(phantom.lesion & m).sum() for m in (phantom.right_lung, phantom.left_lung)]
    assert max(sides) > 0.95 * sum(sides)
    rest = ndimage.binary_erosion(phantom.lung & ~phantom.lesion)
    fluid = ndimage.binary_opening(rest & (abs(phantom.hu - 8) < 60), iterations=1)
    assert volume_ml(grid, fluid) > 20


@pytest.mark.parametrize("disease", ["normal", "nodules"])
def test_without_pneumonia_there_is_no_lesion(disease: str) -> None:
    phantom = build_phantom(Grid.axial((20, 96, 96), (15, 4, 4)), disease, seed=3, severity=0.3)
    assert not phantom.lesion.any()


def test_nodules_add_dense_spots(normal: Phantom) -> None:
    nodules = build_phantom(normal.grid, "nodules", seed=3)
    np.testing.assert_array_equal(nodules.lung, normal.lung)
    added = (nodules.hu > -200) & (normal.hu < -600) & normal.lung
    assert 0.1 < volume_ml(normal.grid, added) < 40


def test_no_severity_means_no_opacity() -> None:
    grid = Grid.axial((12, 64, 64), (25, 6, 6))
    assert not build_phantom(grid, "covid19", seed=3, severity=0).lesion.any()


def test_thick_sections_are_less_noisy_than_thin_ones() -> None:
    thin = build_phantom(
        Grid.axial((3, 144, 144), SPACING, slice_thickness_mm=1.0), "normal", seed=3
    )
    thick = build_phantom(Grid.axial((3, 144, 144), SPACING), "normal", seed=3)
    assert thin.hu[1, :20, :20].std() > 1.5 * thick.hu[1, :20, :20].std()


def test_a_grid_beside_the_patient_is_air() -> None:
    grid = Grid.axial((2, 32, 32), (5, 3, 3), centre_mm=(0, -600, 0))
    phantom = build_phantom(grid, "covid19", seed=3)
    assert phantom.hu.max() < -850
    assert not phantom.lung.any()


@pytest.fixture(scope="module")
def scans() -> dict[str, Phantom]:
    grid = Grid.axial((10, 96, 96), (26, 4, 4), slice_thickness_mm=2)
    options = {
        "plain": {},
        "contrast": {"contrast_hu": 200.0},
        "motion": {"motion_mm": 12.0},
        "metal": {"metal": True},
    }
    return {n: build_phantom(grid, "normal", 3, noise_hu=0, **o) for n, o in options.items()}


def test_contrast_medium_is_seen_in_the_blood_and_not_in_the_air(scans) -> None:
    added = scans["contrast"].hu.astype(int) - scans["plain"].hu
    assert 180 < np.percentile(added, 99.9) < 220
    air = scans["plain"].hu < -700
    assert abs(added[air]).mean() < 1


def test_motion_blurs_and_moves_nothing_on_the_whole(scans) -> None:
    plain, moved = (scans[n].hu.astype(float) for n in ("plain", "motion"))
    sharpness = [np.abs(np.diff(hu, axis=2)).mean() for hu in (plain, moved)]
    assert sharpness[1] < 0.95 * sharpness[0]
    centres = [ndimage.center_of_mass(hu + 1000) for hu in (plain, moved)]
    assert np.abs(np.subtract(*centres)).max() < 0.1


def test_metal_lies_beside_the_spine_and_leaves_streaks(scans) -> None:
    added = scans["metal"].hu.astype(int) - scans["plain"].hu
    rods = scans["metal"].hu > 2000
    assert rods.any()
    x = scans["metal"].grid.to_patient(np.argwhere(rods))[:, 0]
    assert {True, False} == set(x > 0)
    met = rods.any((1, 2))
    assert not added[~met].any()
    assert np.abs(added[met]).mean() > 3


def test_a_seed_draws_one_scanner_and_seeds_draw_many() -> None:
    drawn = [draw_acquisition(seed) for seed in range(60)]
    first, again = drawn[0], draw_acquisition(0)
    np.testing.assert_array_equal(first.grid.affine, again.grid.affine)
    assert (first.kernel, first.noise_hu) == (again.kernel, again.noise_hu)
    thickness = [one.grid.thickness_mm for one in drawn]
    assert 0.6 <= min(thickness) < 1 < 8 < max(thickness) <= 10
    assert max(one.grid.shape[0] for one in drawn) <= 120
    assert {one.kernel for one in drawn} == {"soft", "standard", "sharp"}
    for name in ("contrast_hu", "motion_mm", "metal"):
        assert 0 < sum(bool(getattr(one, name)) for one in drawn) < 30


def test_a_varied_phantom_is_its_seeds_patient_on_its_seeds_scanner() -> None:
    phantom = varied_phantom(7, "normal", pixel_mm=(6, 7), most_slices=12)
    shape = draw_acquisition(7, (6, 7), 12).grid.shape
    assert phantom.hu.shape == shape
    assert phantom.lung.any()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"disease": "flu"}, "disease"),
        ({"severity": 2.0}, "severity"),
        ({"severity": float("nan")}, "severity"),
        ({"seed": -1}, "seed"),
        ({"kernel": "wet"}, "kernel"),
        ({"noise_hu": -3}, "noise"),
        ({"contrast_hu": -3}, "contrast"),
        ({"motion_mm": -3}, "motion"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build_phantom(Grid.axial((2, 32, 32), (5, 9, 9)), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (0, 8, 8)},
        {"spacing_mm": (1, 0, 1)},
        {"patient_position": "XYZ"},
        {"slice_thickness_mm": -1},
    ],
)
def test_bad_grids_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="must"):
        Grid.axial(**arguments)
