"""Studies that the models know, and studies that they do not, each with what must be said of it.

All are made from phantoms with the Hounsfield units of a real chest, since the lung network that
ships looks at them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from series_edits import edit

from tools.phantom import Grid, Phantom, build_phantom, write_dicom_series

NO_SERIES, BROKEN = 3, 4
SHAPE, SPACING_MM = (32, 176, 176), (10.0, 2.2, 2.2)
HuChange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Bad:
    """How a study is made, and what must come of it: an exit code, or reasons and a verdict.

    Attributes
    ----------
    make : callable
        Changes the study folder, which holds the series of a good phantom in ``series``.
    exit_code : int
        0 where there is a result.
    reasons : tuple of str
        One of them must be given, patterns of the refusal where there is one.
    verdict : str
        Of the result.
    """

    make: Callable[[Path], None]
    exit_code: int = 0
    reasons: tuple[str, ...] = ()
    verdict: str = ""


BAD: dict[str, Bad] = {}


def _refused(exit_code: int, *patterns: str) -> Callable[[Callable[[Path], None]], None]:
    return lambda make: BAD.update({make.__name__: Bad(make, exit_code, patterns)})


def _flagged(verdict: str, *reasons: str) -> Callable[[Callable[[Path], None]], None]:
    return lambda make: BAD.update({make.__name__: Bad(make, 0, reasons, verdict)})


def phantom(disease: str = "covid19", seed: int = 21, **options: Any) -> Phantom:
    """Scan a coarse phantom; ``grid`` among the options has settings of its grid."""
    grid = {"shape": SHAPE, "spacing_mm": SPACING_MM, **options.pop("grid", {})}
    return build_phantom(Grid.axial(**grid), disease, seed, **options)


def _change_hu(study: Path, change: HuChange) -> None:
    def rescale(_: int, dataset: Dataset) -> None:
        hu = change(dataset.pixel_array.astype(np.float32) - 1024)
        dataset.PixelData = np.rint(hu + 1024).clip(0, 4095).astype("<u2").tobytes()

    edit(study, rescale)


def _change_slices(study: Path, change: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Change slices by their number, counted from the feet."""
    numbers = {file.name: index for index, file in enumerate(_files_by_position(study))}
    for file in (study / "series").iterdir():
        dataset = dcmread(file)
        hu = change(numbers[file.name], dataset.pixel_array.astype(np.float32) - 1024)
        dataset.PixelData = np.rint(hu + 1024).clip(0, 4095).astype("<u2").tobytes()
        dataset.save_as(file)


def _copy_pixels(study: Path, source_of: dict[int, int]) -> None:
    """Give slices, counted from the feet, the pixels of others."""
    files = _files_by_position(study)
    pixels = [dcmread(file).PixelData for file in files]
    for index, source in source_of.items():
        dataset = dcmread(files[index])
        dataset.PixelData = pixels[source]
        dataset.save_as(files[index])


def _replace_by(study: Path, other: Phantom) -> None:
    for file in (study / "series").iterdir():
        file.unlink()
    write_dicom_series(other, study / "series")


def _files_by_position(study: Path) -> list[Path]:
    """From the feet to the head."""
    files = (study / "series").glob("*.dcm")
    return sorted(files, key=lambda f: float(dcmread(f).ImagePositionPatient[2]))


def _remove(study: Path, part: slice) -> None:
    for file in _files_by_position(study)[part]:
        file.unlink()


# --- Not a chest, or part of one


@_refused(NO_SERIES, "ml of lung were found")
def head(study: Path) -> None:
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * mm).reshape(shape)
        for n, mm, shape in zip(SHAPE, SPACING_MM, np.eye(3, dtype=int) * -2 + 1, strict=True)
    )
    radius = np.sqrt((z / 110) ** 2 + (y / 95) ** 2 + (x / 75) ** 2)
    hu = np.select([radius < 0.88, radius < 0.95, radius < 1], [35.0, 900.0, 45.0], -1000.0)
    for at_z, at_y, at_x in ((-40, -60, -20), (-40, -60, 20), (-70, -40, 0), (-20, -70, 0)):
        sinus = ((z - at_z) / 22) ** 2 + ((y - at_y) / 18) ** 2 + ((x - at_x) / 16) ** 2
        hu[sinus < 1] = -980
    hu += np.random.default_rng(1).normal(0, 10, hu.shape)
    _replace_by(study, replace(phantom(seed=1), hu=hu.clip(-1024, 3071).astype(np.int16)))


@_refused(NO_SERIES, "ml of lung were found")
def cylinder_of_water(study: Path) -> None:
    y, x = ((np.arange(n) - n / 2) * 2.2 for n in SHAPE[1:])
    hu = np.where(y[:, None] ** 2 + x**2 < 150**2, 0, -1000) + np.zeros(SHAPE)
    _replace_by(study, replace(phantom(seed=1), hu=hu.astype(np.int16)))


@_refused(NO_SERIES, "ml of lung were found")
def neck(study: Path) -> None:
    _replace_by(study, phantom(grid={"centre_mm": (0, 0, 290)}))


@_flagged("limited", "lungs_incomplete")
def abdomen(study: Path) -> None:
    _replace_by(study, phantom(grid={"centre_mm": (0, 0, -235)}))


@_flagged("limited", "lungs_incomplete")
def lower_half_of_the_lungs(study: Path) -> None:
    _remove(study, slice(17, None))


@_flagged("limited", "lungs_incomplete")
def upper_half_of_the_lungs(study: Path) -> None:
    _remove(study, slice(0, 15))


@_flagged("limited", "field_of_view", "lungs_incomplete")
def lungs_beyond_the_picture(study: Path) -> None:
    _replace_by(study, phantom(grid={"spacing_mm": (10.0, 1.2, 1.2)}))


@_refused(BROKEN, "slices are missing")
def missing_slices(study: Path) -> None:
    _remove(study, slice(12, 15))


# --- The Hounsfield scale


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def inverted(study: Path) -> None:
    _change_hu(study, lambda hu: -hu)


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def inverted_about_the_middle_of_12_bits(study: Path) -> None:
    _change_hu(study, lambda hu: 2047 - hu)


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def a_thousand_too_high(study: Path) -> None:
    _change_hu(study, lambda hu: hu + 1000)


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def a_thousand_too_low(study: Path) -> None:
    _change_hu(study, lambda hu: hu - 1000)


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def eight_bit_lung_window(study: Path) -> None:
    _change_hu(study, lambda hu: ((hu + 1350) / 1500 * 255).clip(0, 255))


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def eight_bit_lung_window_with_an_intercept(study: Path) -> None:
    _change_hu(study, lambda hu: ((hu + 1350) / 1500 * 255).clip(0, 255) - 1024)


@_refused(BROKEN, "not those of a chest in Hounsfield units")
def mediastinal_window(study: Path) -> None:
    _change_hu(study, lambda hu: hu.clip(-160, 240))


@_flagged("unreliable", "hounsfield_scale")
def three_hundred_too_high(study: Path) -> None:
    _change_hu(study, lambda hu: hu + 300)


@_flagged("unreliable", "hounsfield_scale")
def three_hundred_too_low(study: Path) -> None:
    _change_hu(study, lambda hu: hu - 300)


# --- Noise


@_flagged("limited", "noise")
def extreme_noise(study: Path) -> None:
    random = np.random.default_rng(1)
    _change_hu(study, lambda hu: hu + random.normal(0, 300, hu.shape))


@_flagged("limited", "noise")
def noise_in_half_of_the_slices(study: Path) -> None:
    random = np.random.default_rng(1)

    def disturb(index: int, hu: np.ndarray) -> np.ndarray:
        return hu + random.normal(0, 300, hu.shape) if index < SHAPE[0] // 2 else hu

    _change_slices(study, disturb)


# --- Slices that were lost or mixed up, though every position has one


@_flagged("limited", "odd_slices")
def empty_slices(study: Path) -> None:
    _change_slices(study, lambda index, hu: hu * 0 - 1000 if 12 <= index < 15 else hu)


@_flagged("limited", "odd_slices")
def upper_slices_empty(study: Path) -> None:
    _change_slices(study, lambda index, hu: hu * 0 - 1024 if index >= 17 else hu)


@_flagged("limited", "odd_slices")
def one_slice_of_random_values(study: Path) -> None:
    random = np.random.default_rng(1)
    _change_slices(
        study, lambda index, hu: random.uniform(-1000, 1000, hu.shape) if index == 15 else hu
    )


@_flagged("limited", "odd_slices")
def one_slice_of_another_window(study: Path) -> None:
    _change_slices(study, lambda index, hu: hu / 2 if index == 15 else hu)


@_flagged("limited", "odd_slices")
def the_same_slice_again_and_again(study: Path) -> None:
    _copy_pixels(study, {13: 12, 14: 12, 15: 12})


@_flagged("limited", "odd_slices")
def two_slices_exchanged(study: Path) -> None:
    _copy_pixels(study, {10: 20, 20: 10})


@_flagged("unreliable", "lungs_implausible")
def slices_in_disorder(study: Path) -> None:
    order = np.random.default_rng(1).permutation(SHAPE[0])
    _copy_pixels(study, dict(enumerate(order.tolist())))


# --- Geometry


@_flagged("limited", "slice_spacing")
def slices_far_apart(study: Path) -> None:
    files = _files_by_position(study)
    for index, file in enumerate(files):
        if index % 2:
            file.unlink()


@_flagged("unreliable", "lungs_implausible")
def pixels_of_twice_their_size(study: Path) -> None:
    def stretch(_: int, dataset: Dataset) -> None:
        dataset.PixelSpacing = [2 * float(mm) for mm in dataset.PixelSpacing]
        dataset.ImagePositionPatient = [
            *(2 * float(mm) for mm in dataset.ImagePositionPatient[:2]),
            dataset.ImagePositionPatient[2],
        ]

    edit(study, stretch)


GOOD: dict[str, dict[str, Any]] = {
    "covid19": {},
    "healthy": {"disease": "normal", "seed": 22},
    "bacterial": {"disease": "bacterial", "seed": 23, "severity": 0.15},
    "nodules": {"disease": "nodules", "seed": 24},
    "57 percent of the lungs": {"seed": 25, "severity": 0.57},
    "75 percent of the lungs": {"seed": 26, "severity": 0.75},
    "soft kernel": {"seed": 27, "kernel": "soft", "noise_hu": 6.0},
    "sharp kernel, low dose": {"seed": 28, "kernel": "sharp", "noise_hu": 60.0},
    "prone": {"seed": 29, "grid": {"patient_position": "HFP"}},
    "feet first": {"seed": 30, "grid": {"patient_position": "FFS"}},
    "oblique": {"seed": 31, "grid": {"rotation_deg": (0.0, 8.0, 4.0)}},
    "8 mm": {"seed": 32, "grid": {"shape": (40, 176, 176), "spacing_mm": (8.0, 2.2, 2.2)}},
    "3 mm": {"seed": 33, "grid": {"shape": (110, 160, 160), "spacing_mm": (3.0, 2.4, 2.4)}},
    "0.6 mm": {"seed": 41, "grid": {"shape": (520, 130, 130), "spacing_mm": (0.625, 3.0, 3.0)}},
    "1 mm, sharp kernel, low dose": {
        "seed": 42,
        "kernel": "sharp",
        "noise_hu": 60.0,
        "grid": {"shape": (330, 130, 130), "spacing_mm": (1.0, 3.0, 3.0)},
    },
    "contrast medium": {"seed": 45, "contrast_hu": 300.0},
    "metal": {"seed": 47, "metal": True},
    "motion": {"seed": 48, "motion_mm": 6.0},
    "no noise": {"seed": 50, "noise_hu": 0.0},
    "88 percent of the lungs": {"seed": 51, "severity": 0.88},
    "narrow picture": {"seed": 34, "grid": {"spacing_mm": (10.0, 1.9, 1.9)}},
}
