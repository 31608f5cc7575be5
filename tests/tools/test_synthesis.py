"""Synthetic lesions: in the lungs and nowhere else, of the wanted share, denser, repeatable."""

import nibabel
import numpy as np
import pytest

from tools.phantom import Grid, build_phantom, write_nifti
from tools.synthesis import DISEASES, insert_lesions
from tools.synthesis.fields import smooth_noise
from tools.synthesis.lesions import worsen_lesions
from tools.synthesis.studies import write_synthetic

SPACING_MM = (10.0, 4.0, 4.0)


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


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_share_is_about_the_one_asked_for(healthy, lungs, share, seed):
    _, glass, solid = draw(healthy, lungs, seed=seed, share=share)
    assert (glass | solid).sum() / lungs.sum() == pytest.approx(share, rel=0.5)


def test_a_seed_gives_one_study_and_another_seed_another(healthy, lungs):
    first, again, other = (draw(healthy, lungs, seed=s)[0] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_normal_draws_nothing(healthy, lungs):
    ct, glass, solid = draw(healthy, lungs, "normal")
    np.testing.assert_array_equal(ct, healthy.hu)
    assert not glass.any()
    assert not solid.any()


def test_bacterial_pneumonia_is_one_dense_place(healthy, lungs):
    _, glass, solid = draw(healthy, lungs, "bacterial", share=0.1)
    assert solid.sum() > glass.sum()
    left_share = solid[:, :, 50:].sum() / solid.sum()
    assert left_share > 0.95 or left_share < 0.05


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
