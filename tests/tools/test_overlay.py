from pathlib import Path

import matplotlib.image
import numpy as np

from ct_triage.volume import Volume
from tools.overlay import draw_overlay


def _volume(shape: tuple[int, int, int]) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = np.fliplr(np.diag((1.0, 1.0, 5.0)))
    return Volume(np.full(shape, -800, np.int16), affine, ())


def _has_red(picture: np.ndarray) -> bool:
    red, green, blue = np.moveaxis(picture[..., :3], -1, 0)
    return bool(((red > 0.5) & (red > green + 0.2) & (red > blue + 0.2)).any())


def test_lesions_are_drawn_in_red_below_the_plain_slices(tmp_path: Path) -> None:
    shape = (8, 64, 64)
    segments = {number: np.zeros(shape, bool) for number in (1, 2, 3)}
    segments[1][1:7, 20:40, 5:25] = True
    segments[2][1:7, 20:40, 40:60] = True
    segments[3][2:6, 25:35, 10:20] = True

    draw_overlay(_volume(shape), segments, tmp_path / "all.png")
    draw_overlay(_volume(shape), {n: segments[n] for n in (1, 2)}, tmp_path / "lungs.png")

    picture = matplotlib.image.imread(tmp_path / "all.png")
    assert _has_red(picture[picture.shape[0] // 2 :])
    assert not _has_red(picture[: picture.shape[0] // 2])
    assert not _has_red(matplotlib.image.imread(tmp_path / "lungs.png"))
