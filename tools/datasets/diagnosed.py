"""Studies with a diagnosis each: ``python -m tools.datasets.diagnosed OUTPUT --count 90``.

The collections in reach name no study's disease other than COVID-19, so networks that tell
diseases apart are trained on phantoms and, with ``--lungs``, on diseases drawn into the lungs of
healthy patients.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from tqdm import tqdm

from tools.phantom import Grid, Phantom, build_phantom, write_nifti
from tools.synthesis.studies import (
    CONSOLIDATION,
    DIAGNOSES,
    GROUND_GLASS,
    HEALTHY_UP_TO_SHARE,
    healthy_patients,
    write_diagnosed_study,
)

from .phantoms import KERNELS

DISEASES = ("covid19", "bacterial", "covid19", "nodules", "normal")
FIRST_SEED = 9000
"""Apart from the seeds of `phantoms`, of tests and of demonstrations."""

UNSEEN_PATIENTS = ("S1-102", "S1-201")
SPACING_MM = 2.0

Job = tuple[Callable[..., None], tuple]


def write_diagnosed(
    folder: Path,
    count: int,
    unseen: int,
    lungs: Sequence[Path] = (),
    studies: int = 40,
    unseen_patients: Sequence[str] = UNSEEN_PATIENTS,
    first_seed: int = FIRST_SEED,
) -> None:
    """Write phantoms and studies in real lungs, and ``diagnoses.csv``.

    Each is NAME_ct, NAME_lung, NAME_lesion as `write_nifti` has them, and
    NAME_opacity_seg.nii.gz with 1 in ground glass and 2 in consolidation; 2 mm pixels, slices of
    5 to 8 mm. ``diagnoses.csv`` has the columns name and diagnosis (covid19, bacterial, nodules
    or normal). A NAME begins with ``seen-`` or with ``unseen-``, to be kept out of training; what
    precedes its dot is the patient.

    Parameters
    ----------
    folder
        Where to write.
    count
        How many phantoms; phantom n is the same for every count and `unseen`.
    unseen
        How many of them, the last ones, are ``unseen-...``.
    lungs
        Folders with NAME_ct, NAME_lung and NAME_lesion of real patients. Those without lesions
        each give the same number of studies of every diagnosis, so a network cannot tell the
        diagnosis by the patient.
    studies
        How many studies to draw from each patient, a multiple of the four diagnoses.
    unseen_patients
        Patients all of whose studies are ``unseen-...``.
    first_seed
        Seed of the first phantom; the others follow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str]] = []
    jobs: list[Job] = []
    for index in range(count):
        disease = DISEASES[index % len(DISEASES)]
        name = f"{'seen' if index < count - unseen else 'unseen'}-{index:03d}-{disease}"
        rows.append((name, disease))
        jobs.append((_write_phantom, (folder, name, disease, first_seed + index)))
    for name, disease, *drawn_from, seed in _real_lungs(lungs, studies, unseen_patients):
        rows.append((name, disease))
        jobs.append((write_diagnosed_study, (*drawn_from, folder, name, disease, seed)))
    _run(jobs)
    with (folder / "diagnoses.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("name", "diagnosis"), *rows])


def _real_lungs(
    folders: Sequence[Path], studies: int, unseen_patients: Sequence[str]
) -> Iterator[tuple[str, str, Path, str, int]]:
    """Yield name, diagnosis, folder and name of the patient, and seed of each study."""
    for source in folders:
        for patient in healthy_patients(source):
            group = "unseen" if patient in unseen_patients else "seen"
            for index in range(studies):
                disease = DIAGNOSES[index % len(DIAGNOSES)]
                yield f"{group}-{patient}.{index:03d}-{disease}", disease, source, patient, index


def _write_phantom(folder: Path, name: str, disease: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    thickness_mm = float(random.uniform(5, 8))
    slices, pixels = round(320 / thickness_mm), round(400 / SPACING_MM)
    grid = Grid.axial((slices, pixels, pixels), (thickness_mm, SPACING_MM, SPACING_MM))
    kernel, noise_hu = str(random.choice(KERNELS)), float(random.uniform(5, 30))
    phantom = build_phantom(grid, disease, seed, kernel=kernel, noise_hu=noise_hu)
    write_nifti(phantom, folder, name)
    write_opacities(phantom, folder, name)


def write_opacities(phantom: Phantom, folder: Path, name: str) -> None:
    """Write NAME_opacity_seg.nii.gz beside a phantom's files, on their grid."""
    opacity = GROUND_GLASS * phantom.ground_glass + CONSOLIDATION * phantom.consolidation
    ct = nibabel.Nifti1Image.from_filename(folder / f"{name}_ct.nii.gz")
    image = nibabel.Nifti1Image(opacity.astype(np.uint8).transpose(2, 1, 0), ct.affine)
    nibabel.save(image, folder / f"{name}_opacity_seg.nii.gz")


def _run(jobs: Sequence[Job]) -> None:
    """Do the jobs on all cores that this process may use."""
    workers = min(len(os.sched_getaffinity(0)), len(jobs))
    with ProcessPoolExecutor(workers) as pool:
        running = [pool.submit(function, *arguments) for function, arguments in jobs]
        for job in tqdm(running, desc="studies", disable=None):
            job.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.datasets.diagnosed",
        description="Write studies of COVID-19, bacterial pneumonia, nodules and normal lungs: "
        "phantoms, and with --lungs also diseases drawn into the lungs of healthy patients.",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=90, help="how many phantoms (90)")
    parser.add_argument(
        "--unseen", type=int, default=20, help="how many of them to name unseen-... (20)"
    )
    parser.add_argument(
        "--lungs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of NAME_ct, NAME_lung and NAME_lesion.nii.gz, such as TREE/lctsc; patients "
        f"with lesions in more than {100 * HEALTHY_UP_TO_SHARE:g} %% of the lungs are passed over",
    )
    parser.add_argument(
        "--studies",
        type=int,
        default=40,
        help=f"how many to draw from each patient, a multiple of {len(DIAGNOSES)} (40)",
    )
    parser.add_argument(
        "--unseen-patients",
        nargs="*",
        default=UNSEEN_PATIENTS,
        metavar="PATIENT",
        help=f"whose studies to name unseen-... ({' '.join(UNSEEN_PATIENTS)})",
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=FIRST_SEED,
        help=f"seed of the first phantom, the others follow ({FIRST_SEED})",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.unseen <= options.count:
        parser.error("--unseen must lie between 0 and --count")
    if options.studies < 1 or options.studies % len(DIAGNOSES):
        parser.error(f"--studies must be a multiple of {len(DIAGNOSES)}")
    empty = [source for source in options.lungs if not any(source.glob("*_ct.nii.gz"))]
    if empty:
        parser.error(f"--lungs: {empty[0]} holds no NAME_ct.nii.gz")
    if options.count < 1 and not options.lungs:
        parser.error("nothing to write: give --count or --lungs")
    write_diagnosed(
        options.output,
        options.count,
        options.unseen,
        options.lungs,
        options.studies,
        options.unseen_patients,
        options.first_seed,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
