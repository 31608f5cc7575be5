"""Synthetic lesions: in the lungs and nowhere else, of the wanted share, denser, repeatable."""

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from tools.phantom import Grid, build_phantom, write_nifti
from tools.synthesis import DISEASES, insert_lesions
from tools.synthesis.fields import smooth_noise
from tools.synthesis.lesions import VISIBLE_RISE_HU, worsen_lesions
from tools.synthesis.studies import write_synthetic

SPACING_MM = (10.0, 4.0, 4.0)
FAINTEST_PATIENT_HU = 199
"""Median rise of a reader's lesions above the lung around them in the palest of 14 patients."""


@pytest.fixture(scope="module")
def healthy():
    return build_phantom(
        Grid.axial((28, 100, 100), SPACING_MM), disease="normal", seed=1, noise_hu=5.0
    )


@pytest.fixture(scope="module")
def lungs(healthy):
    return healthy.right_lung | healthy.left_lung


def draw(healthy, lungs, disease="covid19", seed=3, share=None):
    random = np.random.default_rng(seed)
    return insert_lesions(healthy.hu, lungs, SPACING_MM, disease, random, share)


@pytest.mark.parametrize("disease", sorted(DISEASES))
def test_nothing_changes_outside_the_lungs(healthy, lungs, disease):
    ct, glass, solid = draw(healthy, lungs, disease)
    np.testing.assert_array_equal(ct[~lungs], healthy.hu[~lungs])
    assert not (glass | solid)[~lungs].any()
    assert not (glass & solid).any()


def test_lesions_only_make_the_lung_denser(healthy, lungs):
    ct, glass, solid = draw(healthy, lungs, share=0.3)
    assert (ct >= healthy.hu).all()
    ill = glass | solid
    assert np.median(ct[ill]) > np.median(healthy.hu[ill]) + 100


@pytest.mark.parametrize("seed", range(4))
def test_glass_can_be_seen_where_gravity_makes_the_lung_dense(healthy, lungs, seed):
    """What is drawn must not vanish in the lung around it, or be fainter than readers' lesions."""
    rows = np.linspace(0, 300, lungs.shape[1])[None, :, None]
    sunken = np.where(lungs, healthy.hu + rows, healthy.hu)
    ct, glass, solid = insert_lesions(
        sunken, lungs, SPACING_MM, "covid19", np.random.default_rng(seed), 0.4
    )
    rise = ndimage.gaussian_filter((ct - sunken) * (glass | solid), [4 / s for s in SPACING_MM])
    weight = ndimage.gaussian_filter((glass | solid).astype(float), [4 / s for s in SPACING_MM])
    rise = (rise / np.maximum(weight, 1e-3))[glass]
    assert np.quantile(rise, 0.05) > VISIBLE_RISE_HU
    assert np.median(rise) > FAINTEST_PATIENT_HU


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
@pytest.mark.parametrize(("disease", "tolerance"), [("severe", 0.05), ("covid19", 0.3)])
def test_the_share_is_the_one_asked_for(healthy, lungs, disease, tolerance, share):
    # COVID-19 may have bands besides.
    _, glass, solid = draw(healthy, lungs, disease, seed=5, share=share)
    assert (glass | solid).sum() / lungs.sum() == pytest.approx(share, rel=tolerance, abs=0.02)


def test_severe_disease_fills_much_of_the_lungs(healthy, lungs):
    shares, dense = [], []
    for seed in range(4):
        _, glass, solid = draw(healthy, lungs, "severe", seed)
        shares.append((glass | solid).sum() / lungs.sum())
        dense.append(solid.sum() / (glass | solid).sum())
    assert 0.25 < min(shares) < max(shares) < 0.75
    assert max(dense) > 0.4


def test_a_seed_gives_one_study_and_another_seed_another(healthy, lungs):
    first, again, other = (draw(healthy, lungs, seed=s)[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_normal_draws_nothing(healthy, lungs):
    ct, glass, solid = draw(healthy, lungs, "normal")
    np.testing.assert_array_equal(ct, healthy.hu)
    assert not glass.any()
    assert not solid.any()


@pytest.mark.parametrize("seed", range(3))
def test_bacterial_pneumonia_is_dense_and_on_one_side(healthy, lungs, seed):
    _, glass, solid = draw(healthy, lungs, "bacterial", seed, share=0.1)
    ill = glass | solid
    assert solid.sum() > 0.4 * ill.sum()
    sides = [(ill & lung).sum() / ill.sum() for lung in (healthy.right_lung, healthy.left_lung)]
    assert max(sides) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_fluid_lies_at_the_back_and_is_no_lesion(healthy, lungs, seed):
    ct, glass, solid = draw(healthy, lungs, "effusion", seed)
    assert not (glass | solid).any()
    fluid = (ct > healthy.hu + 400) & (np.abs(ct) < 100)
    assert fluid.any()
    slices, rows, _ = np.nonzero(fluid)
    _, lung_rows, _ = np.nonzero(lungs)
    # Supine, water runs down to the back; only a thin meniscus stands at the wall.
    assert np.median(rows) > np.quantile(lung_rows, 0.8)
    assert np.median(slices) < np.median(np.nonzero(lungs)[0])


@pytest.mark.parametrize("seed", range(3))
def test_nodules_are_small_dense_and_no_lesion(healthy, lungs, seed):
    ct, glass, solid = draw(healthy, lungs, "nodules", seed)
    assert not (glass | solid).any()
    added = (ct - healthy.hu)[lungs]
    assert added.max() > 300
    assert 0 < (added > 100).mean() < 0.03


def test_bands_are_thin(healthy, lungs):
    _, _, solid = draw(healthy, lungs, "bands", 1)
    assert 0.002 < solid.sum() / lungs.sum() < 0.15
    depth = ndimage.distance_transform_edt(solid, sampling=SPACING_MM)
    assert np.quantile(depth[solid], 0.9) <= 8


def test_worse_lesions_stay_where_they_are(healthy, lungs):
    _, glass, solid = draw(healthy, lungs, share=0.1)
    lesions = glass | solid
    worse = worsen_lesions(healthy.hu, lungs, lesions, SPACING_MM, np.random.default_rng(0))
    changed = worse - healthy.hu
    assert changed.min() >= 0
    assert changed[lesions].mean() > 20 * changed[~lesions].mean()


@pytest.mark.parametrize("scale_mm", [4.0, 30.0])
def test_noise_has_unit_deviation_and_its_scale(scale_mm):
    field = smooth_noise((40, 60, 60), (5.0, 2.0, 2.0), scale_mm, np.random.default_rng(0))
    assert field.std() == pytest.approx(1, abs=0.25)
    # A Gaussian kernel of deviation s correlates neighbours at distance d by exp(-d^2 / 4 s^2).
    step = round(scale_mm / 2)
    correlation = np.corrcoef(field[:, step:].ravel(), field[:, :-step].ravel())[0, 1]
    assert correlation == pytest.approx(np.exp(-0.25), abs=0.15)


def test_studies_keep_geometry_and_name_their_patient(tmp_path, healthy):
    write_nifti(healthy, tmp_path / "real", "case7")
    names = list(write_synthetic(tmp_path / "real", tmp_path / "synthetic", 2))
    assert names == ["case7.synthetic-0", "case7.synthetic-1"]
    source = nibabel.load(tmp_path / "real" / "case7_ct.nii.gz")
    lungs = np.asarray(nibabel.load(tmp_path / "real" / "case7_lung.nii.gz").dataobj) > 0
    for name in names:
        load = {
            kind: nibabel.as_closest_canonical(
                nibabel.load(tmp_path / "synthetic" / f"{name}_{kind}.nii.gz")
            )
            for kind in ("ct", "lung", "lesion")
        }
        canonical = nibabel.as_closest_canonical(source)
        np.testing.assert_allclose(load["ct"].affine, canonical.affine)
        assert (np.asarray(load["lung"].dataobj) > 0).sum() == lungs.sum()
        lesion = np.asarray(load["lesion"].dataobj) > 0
        assert lesion.any()
        darker = np.asarray(load["ct"].dataobj)[~lesion] - np.asarray(canonical.dataobj)[~lesion]
        assert np.median(np.abs(darker)) < 1
