"""CT and segmentation in VolView and OHIF, in a real browser: the overlay lies on the masks.

Needs chromium and chromium-driver (Debian packages), npm to fetch the viewers once, and for OHIF
an Orthanc. What was seen is left in ``build/viewers``, where the documents' pictures are from.
"""

import functools
import http.server
import io
import itertools
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from orthanc import OrthancServer
from PIL import Image
from pydicom import Dataset
from scipy.ndimage import binary_erosion
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from small_study import ORIGIN

from ct_triage.reading import read_volume
from ct_triage.seg import build_seg
from ct_triage.series import find_series
from ct_triage.severity import Segments
from tools.phantom import Grid, build_phantom, write_dicom_series

pytestmark = pytest.mark.slow

VOLVIEW = "volview@4.4.1"
OHIF = "@ohif/app@3.12.10"
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


def _web_page(package: str) -> Path:
    """Folder of the web page in a package of npm, which is fetched once."""
    folder = CACHE / package.replace("/", "-")
    if not folder.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is missing: install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=CACHE,
            capture_output=True,
            text=True,
            check=False,
        )
        if packed.returncode:
            pytest.skip(f"{package} cannot be fetched from npm's registry")
        with (
            tempfile.TemporaryDirectory(dir=CACHE) as scratch,
            tarfile.open(CACHE / packed.stdout.split()[-1]) as archive,
        ):
            archive.extractall(scratch, filter="data")
            os.replace(Path(scratch) / "package", folder)
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
    browser.set_page_load_timeout(PATIENCE_SECONDS)
    browser.set_script_timeout(PATIENCE_SECONDS)
    browser.command_executor.client_config.timeout = PATIENCE_SECONDS
    yield browser
    browser.quit()


@dataclass(frozen=True)
class _Study:
    """A study with its true masks by segment number, (slices, rows, columns) as in the affine."""

    files: list[Path]
    seg: Dataset
    affine: np.ndarray
    masks: dict[int, np.ndarray]


@pytest.fixture
def study(tmp_path: Path) -> _Study:
    # VolView 4.4.1 takes the row spacing of CT for the column spacing: square pixels.
    phantom = build_phantom(Grid.axial((32, 192, 192), (10.0, 2.0, 2.0)), "covid19", seed=3)
    files = write_dicom_series(phantom, tmp_path / "study")
    volume = read_volume(find_series(tmp_path / "study"))
    # A phantom is stored from the head down, a volume goes up.
    masks = [m[::-1] for m in (phantom.right_lung, phantom.left_lung, phantom.lesion)]
    seg = build_seg(volume, Segments(*masks), ORIGIN)
    return _Study(files, seg, volume.affine, dict(enumerate(masks, 1)))


@pytest.fixture
def page(study: _Study, tmp_path: Path) -> Iterator[str]:
    """Address of VolView with the study in it, on this machine."""
    site = tmp_path / "site"
    shutil.copytree(_web_page(VOLVIEW), site)
    with zipfile.ZipFile(site / "ct.zip", "w") as archive:
        for file in study.files:
            archive.write(file, file.name)
    study.seg.save_as(site / "seg.dcm")
    handler = functools.partial(_Quiet, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/?urls=[ct.zip,seg.dcm]"
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
    browser: webdriver.Chrome, page: str, study: _Study
) -> None:
    browser.get(page)
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
    screenshot = browser.get_screenshot_as_png()
    (CACHE / "volview.png").write_bytes(screenshot)
    picture = np.array(Image.open(io.BytesIO(screenshot)).convert("RGB"))
    camera = shown["camera"]
    left, top, width, height = shown["rect"]
    mm_per_pixel = 2 * camera["parallelScale"] / height
    down = -np.array(camera["viewUp"])
    right = np.cross(camera["directionOfProjection"], camera["viewUp"])
    focal = np.array(camera["focalPoint"])
    # VolView counts slices from the feet, as this study does.
    assert study.affine[2, 0] > 0

    def place(point_mm: np.ndarray) -> tuple[float, float]:
        offset = (point_mm - focal) / mm_per_pixel
        return left + width / 2 + offset @ right, top + height / 2 + offset @ down

    colours = {number: segment["color"] for number, segment in segments.items()}
    _assert_overlay(picture, study, shown["slice"], place, colours)


def _assert_overlay(
    picture: np.ndarray,
    study: _Study,
    index: int,
    place: Callable[[np.ndarray], tuple[float, float]],
    colours: dict[int, list[int]],
) -> None:
    """Hold a screenshot against the masks of a slice; ``place`` gives x and y of LPS mm in it."""

    def pixels(mask: np.ndarray) -> np.ndarray:
        # A drawn outline is wider than a voxel.
        voxels = np.argwhere(binary_erosion(mask, iterations=2))
        points = np.column_stack([np.full(len(voxels), index), voxels, np.ones(len(voxels))])
        places = np.rint([place(point) for point in (points @ study.affine.T)[:, :3]]).astype(int)
        places = places.reshape(-1, 2)
        inside = ((places >= 0) & (places < picture.shape[1::-1])).all(axis=1)
        return picture[places[inside, 1], places[inside, 0]].astype(int)

    on_slice = {number: mask[index] for number, mask in study.masks.items()}
    for number, mask in on_slice.items():
        # A lesion lies over the tint of its lung.
        tinted = pixels(mask if number == 3 else mask & ~on_slice[3])
        assert len(tinted)
        hits = (np.ptp(tinted, axis=1) >= 10) & (
            tinted.argmax(axis=1) == np.argmax(colours[number][:3])
        )
        assert hits.mean() > 0.98, f"segment {number}: {hits.mean():.0%} where it should be"
    grey = pixels(~np.any(list(on_slice.values()), axis=0))
    assert (np.ptp(grey, axis=1) > 20).mean() < 0.02


# OHIF

OHIF_CONFIGURATION = """
window.config = {
  routerBasename: "/", extensions: [], modes: [], showStudyList: true,
  defaultDataSourceName: "orthanc",
  dataSources: [{
    namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
    sourceName: "orthanc",
    configuration: {
      friendlyName: "Orthanc", name: "orthanc",
      qidoRoot: "/dicom-web", wadoRoot: "/dicom-web", wadoUriRoot: "/dicom-web",
      imageRendering: "wadors", thumbnailRendering: "wadors",
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
    },
  }],
};
"""
# Viewport, and whether it shows a segmentation yet.
OHIF_VIEWPORT = """
const viewports = window.cornerstone
  ? cornerstone.getRenderingEngines().flatMap(engine => engine.getViewports()) : [];
const viewport = viewports[0];
const segmentations = window.cornerstoneTools
  ? cornerstoneTools.segmentation.state.getSegmentations() : [];
"""


class _OhifHandler(_Quiet):
    """OHIF's page, and an archive's DICOMweb below /dicom-web, from one address."""

    archive = ""

    def do_GET(self) -> None:
        if self.path.startswith("/dicom-web"):
            self._forward()
            return
        if not Path(self.translate_path(self.path)).is_file():
            # An address inside OHIF.
            self.path = "/index.html"
        super().do_GET()

    def _forward(self) -> None:
        headers = {name: self.headers[name] for name in ("Accept", "Host") if name in self.headers}
        answer = requests.get(f"{self.archive}{self.path}", headers=headers, timeout=600)
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)


@pytest.fixture
def ohif(study: _Study, tmp_path: Path) -> Iterator[str]:
    """Address of OHIF on this machine, with the study in the archive behind it."""
    site = tmp_path / "ohif"
    shutil.copytree(_web_page(OHIF), site)
    (site / "app-config.js").write_text(OHIF_CONFIGURATION)
    (tmp_path / "orthanc").mkdir()
    orthanc = OrthancServer(tmp_path / "orthanc").start()
    study.seg.save_as(tmp_path / "seg.dcm")
    orthanc.c_store([*study.files, tmp_path / "seg.dcm"])
    handler = type("Handler", (_OhifHandler,), {"archive": orthanc.url})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=site)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    orthanc.kill()


def _wait_for(
    browser: webdriver.Chrome, script: str, what: str, again: Callable[[], None] | None = None
) -> Any:
    """Wait until a script returns something; skip where this browser cannot get that far.

    ``again`` is done at first and whenever nothing has happened for a while.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    seconds = itertools.count()
    while True:
        if found := browser.execute_script(script):
            return found
        if again is not None and next(seconds) % 20 == 0:
            again()
        if time.monotonic() > deadline:
            (CACHE / "ohif_failed.png").write_bytes(browser.get_screenshot_as_png())
            pytest.skip(f"OHIF does not load here: no {what} after {PATIENCE_SECONDS} s")
        time.sleep(1)


def test_ohif_shows_the_segments_where_the_masks_are(
    browser: webdriver.Chrome, ohif: str, study: _Study
) -> None:
    browser.get(f"{ohif}/app-config.js")
    # No tour over the picture.
    browser.execute_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
    browser.get(f"{ohif}/viewer?StudyInstanceUIDs={study.seg.StudyInstanceUID}")
    _wait_for(browser, f"{OHIF_VIEWPORT} return viewport && viewport.getImageIds().length", "CT")
    thumbnail = _wait_for(
        browser,
        "return [...document.querySelectorAll('[data-cy^=study-browser-thumbnail]')]"
        ".find(e => e.textContent.includes('SEG'))",
        "thumbnail of the segmentation",
    )
    browser.execute_script(
        "[...document.querySelectorAll('button')]"
        ".filter(button => button.textContent.includes('Confirm and hide'))"
        ".forEach(button => button.click())"
    )
    # It takes no notice of a click while it is busy with the CT.
    double_click = webdriver.ActionChains(browser).double_click(thumbnail)
    script = f"{OHIF_VIEWPORT} return segmentations.length"
    _wait_for(browser, script, "segmentation", double_click.perform)
    yes = _wait_for(
        browser,
        "return [...document.querySelectorAll('button')].find(b => b.textContent.trim() == 'Yes')",
        "question whether to open it",
    )
    yes.click()
    # A slice with lesions, once that is drawn.
    time.sleep(10)
    browser.execute_script(
        f"{OHIF_VIEWPORT} return cornerstone.utilities.jumpToSlice(viewport.element,"
        f"{{imageIndex: {len(study.files) // 2}}})"
    )
    # Loaded is not yet drawn.
    time.sleep(10)
    screenshot = browser.get_screenshot_as_png()
    (CACHE / "ohif.png").write_bytes(screenshot)
    picture = np.array(Image.open(io.BytesIO(screenshot)).convert("RGB"))
    shown = browser.execute_script(
        f"""{OHIF_VIEWPORT}
        const rect = viewport.canvas.getBoundingClientRect();
        const origin = viewport.canvasToWorld([0, 0]);
        const id = segmentations[0].segmentationId;
        return {{
            focal: viewport.getCamera().focalPoint, rect: [rect.x, rect.y], origin: [...origin],
            right: [...viewport.canvasToWorld([100, 0])],
            down: [...viewport.canvasToWorld([0, 100])],
            colours: [1, 2, 3].map(number => [...cornerstoneTools.segmentation.config.color
                .getSegmentIndexColor(viewport.id, id, number)])
        }}"""
    )
    origin = np.array(shown["origin"])
    axes = np.column_stack([(np.array(shown[axis]) - origin) / 100 for axis in ("right", "down")])
    index = round((np.linalg.inv(study.affine) @ [*shown["focal"], 1])[0])

    def place(point_mm: np.ndarray) -> tuple[float, float]:
        x, y = np.linalg.lstsq(axes, point_mm - origin, rcond=None)[0] + shown["rect"]
        return x, y

    _assert_overlay(picture, study, index, place, dict(enumerate(shown["colours"], 1)))
