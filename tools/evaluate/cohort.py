"""Phantom studies of the papers' shape, from raw DICOM through the application to a report.

Four classes in equal parts, as in the multitask paper's test set (3.5): COVID-19, bacterial
pneumonia, nodules, normal. A study that is done is not done again, so a run that was killed goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ct_triage.configuration import Configuration
from ct_triage.errors import TriageError
from ct_triage.pipeline import Pipeline
from ct_triage.results import RESULT_FILE, SEG_FILE
from ct_triage.severity import Involvement
from tools.evaluate import correlation, segmentation, slices, triage
from tools.evaluate.bootstrap import note
from tools.evaluate.cases import progress
from tools.evaluate.masks import EvaluationError
from tools.evaluate.report import Report, prefixed
from tools.evaluate.results import read_result
from tools.evaluate.settings import keep_settings
from tools.phantom import Grid, Phantom, build_phantom, write_dicom_series, write_nifti

DISEASES = ("covid19", "bacterial", "nodules", "normal")
POSITIVE = "covid19"
KERNELS = ("soft", "standard", "sharp")
FIRST_SEED = 20_000
"""Above all seeds that networks are trained on."""
FIELD_OF_VIEW_MM, LENGTH_MM = 400.0, 310.0
TRUTH_FILE = "truth.json"
BUNDLES = Path(__file__).parents[2] / "bundles"


@dataclass(frozen=True, slots=True)
class Study:
    """One phantom study to make and to run."""

    name: str
    disease: str
    seed: int
    slices: int
    matrix: int
    kernel: str
    noise_hu: float
    folder: Path
    models: Path
    lesions: str = Configuration().models.lesions

    @property
    def ct(self) -> Path:
        """Folder of the DICOM series."""
        return self.folder / "ct"

    @property
    def result(self) -> Path:
        """Folder of the application's results."""
        return self.folder / "result"

    @property
    def grid(self) -> Grid:
        """Where a phantom is sampled."""
        spacing = (LENGTH_MM / self.slices, *(FIELD_OF_VIEW_MM / self.matrix,) * 2)
        return Grid.axial((self.slices, self.matrix, self.matrix), spacing)

    def draw(self) -> Phantom:
        """Draw images and truth."""
        return build_phantom(
            self.grid, self.disease, self.seed, kernel=self.kernel, noise_hu=self.noise_hu
        )


def plan(count: int, slice_count: int, matrix: int, folder: Path, models: Path) -> list[Study]:
    """Draw the studies; the first n are the same for every count."""
    studies = []
    for index in range(count):
        random = np.random.default_rng(FIRST_SEED + index)
        disease = DISEASES[index % len(DISEASES)]
        name = f"{index + 1:03d}-{disease}"
        studies.append(
            Study(
                name=name,
                disease=disease,
                seed=FIRST_SEED + index,
                slices=slice_count,
                matrix=matrix,
                kernel=str(random.choice(KERNELS)),
                noise_hu=round(float(random.uniform(5, 30)), 1),
                folder=folder / name,
                models=models,
            )
        )
    return studies


def make(study: Study) -> None:
    """Write a study's DICOM series and its truth, unless they are there."""
    if (study.folder / TRUTH_FILE).exists():
        return
    shutil.rmtree(study.folder, ignore_errors=True)
    phantom = study.draw()
    write_dicom_series(phantom, study.ct, shuffle_file_names=True)
    write_nifti(phantom, study.folder, "truth")
    (study.folder / "truth_ct.nii.gz").unlink()
    shares = {
        side: Involvement(
            float(np.count_nonzero(lung)), float(np.count_nonzero(lung & phantom.lesion))
        ).lesion_share_percent
        for side, lung in (("right", phantom.right_lung), ("left", phantom.left_lung))
    }
    scratch = study.folder / f"{TRUTH_FILE}.writing"
    scratch.write_text(json.dumps(shares))
    # Its presence says that the study is complete.
    scratch.rename(study.folder / TRUTH_FILE)


def process(study: Study) -> str:
    """Make a study and run the application on it, as far as that is not done; returns its name.

    Raises
    ------
    EvaluationError
        If the application refuses the study.
    """
    torch.set_num_threads(1)
    make(study)
    if not (study.result / RESULT_FILE).exists():
        try:
            configuration = Configuration.model_validate({"models": {"lesions": study.lesions}})
            Pipeline(study.ct, study.result, study.models, configuration).run()
        except TriageError as error:
            raise EvaluationError(f"study {study.name}: {error}") from error
    return study.name


def process_all(
    studies: Sequence[Study],
    workers: int,
    quiet: bool,
    work: Callable[[Any], str] = process,
) -> None:
    """Process studies by several processes, showing how far it is."""
    context = multiprocessing.get_context("spawn")
    # One process a core: libraries' own threads on top would only get in each other's way.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONWARNINGS"] = "ignore:Current stack size:RuntimeWarning"
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = [pool.submit(work, study) for study in studies]
        done = concurrent.futures.as_completed(running)
        try:
            for one in progress(done, len(studies), "studies", quiet):
                one.result()
        except BrokenProcessPool as error:
            raise EvaluationError(
                "a process was killed, perhaps for lack of memory; the same command with fewer "
                "--workers goes on with the rest"
            ) from error
        except BaseException:
            # Waiting here: leaving the block asks for a shutdown again, which would take the
            # cancelling back.
            pool.shutdown(cancel_futures=True)
            raise


def datalist(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the datalist of the processed studies."""
    rows = []
    for study in studies:
        truth = json.loads((study.folder / TRUTH_FILE).read_text())
        findings = read_result(study.result / RESULT_FILE)["findings"]
        rows.append(
            {
                "case": study.name,
                "class": study.disease,
                "image": study.ct,
                "truth": study.folder / "truth_lesion.nii.gz",
                "truth_lung": study.folder / "truth_lung.nii.gz",
                "prediction": study.result / SEG_FILE,
                "right_percent": findings["right_lung"]["lesion_share_percent"],
                "left_percent": findings["left_lung"]["lesion_share_percent"],
                "truth_right_percent": truth["right"],
                "truth_left_percent": truth["left"],
            }
        )
    return pd.DataFrame(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--studies", type=int, default=60, help="number of studies (60)")
    parser.add_argument("--slices", type=int, default=60, help="slices of a study (60)")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns (256)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--models", type=Path, default=BUNDLES, help="folder of the bundles")
    parser.add_argument("--pictures", type=int, default=4, help="worst cases to picture (4)")


def run(arguments: argparse.Namespace) -> Report:
    """Make, process and evaluate a cohort."""
    fewest = correlation.FEWEST * len(DISEASES)
    if arguments.studies < fewest:
        raise EvaluationError(f"--studies must be at least {fewest}")
    if arguments.workers < 1:
        raise EvaluationError("--workers must be at least 1")
    output, models = arguments.output.resolve(), arguments.models.resolve()
    names = Configuration().models
    keep_settings(
        output,
        {
            "slices": arguments.slices,
            "matrix": arguments.matrix,
            "lesions": names.lesions,
            "models": {
                name: weights(models / name) for name in (names.lungs, *names.lesion_bundles)
            },
        },
    )
    studies = plan(
        arguments.studies, arguments.slices, arguments.matrix, output / "studies", models
    )
    process_all(studies, arguments.workers, arguments.quiet)
    everything = datalist(studies)
    lists = {"all": everything, "positives": everything[everything["class"] == POSITIVE]}
    lungs = everything[["case", "class", "image", "truth_lung", "prediction"]]
    lists["lungs"] = lungs.rename(columns={"truth_lung": "truth"})
    for name, frame in lists.items():
        frame.to_csv(output / f"{name}.csv", index=False)
    identities = [
        f"{model['name']} {model['version']} ({model['sha256'][:12]})"
        for model in read_result(studies[0].result / RESULT_FILE)["models"]
    ]
    return Report(
        f"Phantom cohort: {len(studies)} studies",
        [
            f"Computed phantoms, no patients: {', '.join(DISEASES)} in equal parts. "
            f"Models: {', '.join(identities)}. Lesions are judged on {POSITIVE} alone. The same "
            "tables follow from all.csv, positives.csv and lungs.csv by the single commands.",
            *note(arguments.resamples),
        ],
        list(_parts(output, arguments)),
    )


def _parts(folder: Path, arguments: argparse.Namespace) -> Iterator[Any]:
    def options(name: str, **more: object) -> argparse.Namespace:
        common = {"quiet": arguments.quiet, "resamples": arguments.resamples}
        return argparse.Namespace(datalist=folder / f"{name}.csv", **common, **more)

    lesions = options("positives", segment="lesion", pictures=arguments.pictures)
    yield from prefixed(
        "triage", triage.run(options("all", positive=POSITIVE, threshold=None)).items
    )
    yield from prefixed("lesions", segmentation.run(lesions).items)
    yield from prefixed("slices", slices.run(options("positives")).items)
    yield from prefixed("severity", correlation.run(options("positives")).items)
    yield from prefixed(
        "lungs", segmentation.run(options("lungs", segment="lung", pictures=1)).items
    )


def weights(bundle: Path) -> str:
    """Return the listed hashes of a bundle's weights."""
    try:
        return (bundle / "models" / "SHA256SUMS").read_text()
    except OSError as error:
        raise EvaluationError(f"{bundle}: is no bundle with weights; see --models") from error
