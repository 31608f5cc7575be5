"""CT and segmentation in VolView, in a real browser: the overlay lies where the masks are.

Needs chromium and chromium-driver (Debian packages), and npm to fetch VolView once.
"""

import functools
import http.server
import io
import os
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from small_study import SmallStudy, small_study

pytestmark = pytest.mark.slow

VOLVIEW = "volview@4.4.1"
CACHE = Path(__file__).parents[2] / "build" / "viewers"
CHROMIUM_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
# A software renderer on a busy machine.
PATIENCE_SECONDS = 600
STORE = (
    "const store = name => document.querySelector('#app').__vue_app__"
    ".config.globalProperties.$pinia._s.get(name);"
)


@pytest.fixture(scope="module")
def volview() -> Path:
    """Folder of VolView's web page."""
    folder = CACHE / VOLVIEW
    if not folder.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is missing: install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", VOLVIEW],
            cwd=CACHE,
            capture_output=True,
            text=True,
            check=False,
        )
        if packed.returncode:
            pytest.skip(f"{VOLVIEW} cannot be fetched from npm's registry")
        with tarfile.open(CACHE / packed.stdout.split()[-1]) as archive:
            archive.extractall(CACHE / "partial", filter="data")
        os.replace(CACHE / "partial" / "package", folder)
    return folder / "dist"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium is missing: install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in CHROMIUM_OPTIONS:
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(volview: Path, tmp_path: Path) -> Iterator[tuple[str, SmallStudy]]:
    """Address of VolView with a study in it, on this machine."""
    # VolView 4.4.1 takes the row spacing of CT for the column spacing: square pixels.
    study = small_study(spacing_mm=(5.0, 1.25, 1.25))
    site = tmp_path / "site"
    shutil.copytree(volview, site)
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(site / "ct.zip", "w") as archive:
        for file in study.write_source(source):
            archive.write(file, file.name)
    study.seg().save_as(site / "seg.dcm")
    handler = functools.partial(_Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/?urls=[ct.zip,seg.dcm]", study
    server.shutdown()


def _wait_for_segments(browser: webdriver.Chrome, count: int) -> dict[int, dict[str, Any]]:
    """Segments by number, once VolView shows them all."""
    script = (
        f"{STORE} const groups = store('segmentGroup');"
        "return groups ? Object.values(groups.metadataByID)"
        ".flatMap(group => Object.values(group.segments.byValue)) : [];"
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(segments := browser.execute_script(script)) < count:
        assert time.monotonic() < deadline, browser.get_log("browser")
        time.sleep(1)
    # Loaded is not yet drawn.
    time.sleep(10)
    return {segment["value"]: segment for segment in segments}


def test_the_overlay_lies_where_the_masks_are(
    browser: webdriver.Chrome, page: tuple[str, SmallStudy]
) -> None:
    address, study = page
    browser.set_page_load_timeout(PATIENCE_SECONDS)
    browser.get(address)
    segments = _wait_for_segments(browser, len(study.masks))
    assert {n: s["name"] for n, s in segments.items()} == {
        1: "right lung",
        2: "left lung",
        3: "lung lesions",
    }
    shown = browser.execute_script(
        f"{STORE} const first = values => Object.values(values)[0];"
        "const rect = document.querySelector('canvas').getBoundingClientRect();"
        "return {camera: first(store('viewCamera').configs['1']),"
        "slice: first(store('viewSlice').configs['1']).slice,"
        "rect: [rect.x, rect.y, rect.width, rect.height]};"
    )
    picture = np.array(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
    camera = shown["camera"]
    left, top, width, height = shown["rect"]
    mm_per_pixel = 2 * camera["parallelScale"] / height
    down = -np.array(camera["viewUp"])
    right = np.cross(camera["directionOfProjection"], camera["viewUp"])
    affine = study.volume.affine
    focal = np.array(camera["focalPoint"])
    # VolView counts slices from the feet, as this study does.
    assert affine[2, 0] > 0

    for number, mask in study.masks.items():
        voxels = np.argwhere(mask[shown["slice"]])
        assert len(voxels)
        colour = np.array(segments[number]["color"][:3], dtype=float)
        hits = []
        for row, column in voxels:
            if number != 3 and study.masks[3][shown["slice"], row, column]:
                continue
            place = affine @ (shown["slice"], row, column, 1)
            offset = place[:3] - focal
            x = round(left + width / 2 + offset @ right / mm_per_pixel)
            y = round(top + height / 2 + offset @ down / mm_per_pixel)
            hits.append(_has_hue_of(picture[y, x], colour))
        # Voxels at the rim may lie under the outline of a neighbour.
        assert np.mean(hits) > 0.95, f"segment {number}: {np.mean(hits):.0%} where it should be"

    background = ~np.any(list(study.masks.values()), axis=0)
    coloured = []
    for row, column in np.argwhere(background[shown["slice"]]):
        offset = (affine @ (shown["slice"], row, column, 1))[:3] - focal
        x = round(left + width / 2 + offset @ right / mm_per_pixel)
        y = round(top + height / 2 + offset @ down / mm_per_pixel)
        if left < x < left + width and top < y < top + height:
            coloured.append(np.ptp(picture[y, x].astype(int)) > 20)
    assert np.mean(coloured) < 0.05


def _has_hue_of(pixel: np.ndarray, colour: np.ndarray) -> bool:
    """Tell whether grey was tinted with a colour; a lesion lies over the tint of its lung."""
    return bool(np.ptp(pixel.astype(int)) >= 10 and pixel.argmax() == colour.argmax())
