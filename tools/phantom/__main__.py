"""Write a chest CT phantom from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .grid import PATIENT_POSITIONS, Grid
from .lesions import DISEASES
from .phantom import build_phantom
from .scanner import KERNELS
from .writers import write_dicom_series, write_nifti


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.phantom",
        description="Write a chest CT phantom as a DICOM series, with its truth if wanted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("output", metavar="OUTPUT", type=Path, help="folder for the DICOM series")
    add("--disease", choices=DISEASES, default="covid19")
    add("--seed", type=int, default=0, help="draws patient, disease and noise")
    add("--severity", type=float, help="opaque share of the lungs, 0 to 0.9; drawn if not given")
    add("--slices", type=int, default=60)
    add("--matrix", type=int, default=256, help="rows and columns")
    add(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("S", "R", "C"),
        help="mm between slices, rows and columns; by default the whole chest fits",
    )
    add("--thickness", type=float, help="section thickness in mm; by default the slice distance")
    add("--patient-position", choices=PATIENT_POSITIONS, default="HFS")
    add(
        "--tilt",
        type=float,
        nargs=3,
        default=(0.0, 0.0, 0.0),
        metavar=("X", "Y", "Z"),
        help="degrees to turn the grid about the patient's axes",
    )
    add("--kernel", choices=tuple(KERNELS), default="standard")
    add("--noise", type=float, default=20.0, help="noise in HU")
    add("--reverse-instance-numbers", action="store_true")
    add("--shuffle-file-names", action="store_true")
    add(
        "--truth",
        action="store_true",
        help="also write OUTPUT/../NAME_{ct,lung,lesion}.nii.gz beside the series",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("slices", "matrix"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be a positive integer, got {getattr(options, name)}")
    # 310 mm from the neck to the recesses and 400 mm across hold nearly every patient.
    spacing = options.spacing or (
        310 / options.slices,
        *(400 / options.matrix,) * 2,
    )
    try:
        grid = Grid.axial(
            (options.slices, options.matrix, options.matrix),
            tuple(spacing),
            options.patient_position,
            rotation_deg=tuple(options.tilt),
            slice_thickness_mm=options.thickness,
        )
        phantom = build_phantom(
            grid,
            options.disease,
            options.seed,
            options.severity,
            kernel=options.kernel,
            noise_hu=options.noise,
        )
        paths = write_dicom_series(
            phantom,
            options.output,
            reverse_instance_numbers=options.reverse_instance_numbers,
            shuffle_file_names=options.shuffle_file_names,
        )
        if options.truth:
            write_nifti(phantom, options.output.parent, options.output.name)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    share = phantom.lesion.sum() / max(int(phantom.lung.sum()), 1)
    print(
        f"{len(paths)} slices in {options.output}: {options.disease}, seed {options.seed}, "
        f"{100 * share:.1f} % of the lungs opaque"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
