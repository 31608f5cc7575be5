"""Run the chest CT triage application: ``python apps/ct_triage -i STUDY -o OUT``."""

import argparse
import gc
import logging
import os
import resource
import sys
import warnings
from pathlib import Path

from ct_triage.termination import end_on_sigterm, wait_if_ending

REPOSITORY_BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
# Holoscan asks for this much stack and warns when it has less.
STACK_BYTES = 32 * 1024 * 1024


def main(argv: list[str] | None = None) -> int:
    """Run the application and return its exit code (see ``ct_triage.errors``)."""
    arguments = _parse(argv)
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    # Only what this application says: libraries quote the values they complain of, and those can
    # be a patient's.
    logging.getLogger("ct_triage").setLevel(arguments.log_level)
    for library in ("pydicom", "highdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _prepare_holoscan()
    # Large arrays of torch in large pages, as numpy's are: half of all page faults, and a tenth of
    # the processor time, would go to handing out small ones.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Holoscan and torch take seconds to import; --help and a wrong option must not.
    gc.disable()
    from ct_triage.configuration import Configuration
    from ct_triage.errors import TriageError
    from ct_triage.pipeline import Pipeline
    from ct_triage.results import summarise
    from ct_triage.runs import Outcome, run, run_every_series

    # What was imported stays: looking for garbage among it, again and again, costs half a second.
    gc.freeze()
    gc.enable()
    try:
        configuration = Configuration()
        if arguments.config is not None:
            configuration = Configuration.read(arguments.config)
        pipeline = Pipeline(arguments.input, arguments.output, arguments.model, configuration)
        if configuration.series.take == "best":
            outcome = run(pipeline)
        else:
            outcome = run_every_series(pipeline)
    except TriageError as error:
        outcome = Outcome(error)
    wait_if_ending()
    for result in outcome.results:
        print(summarise(result))
    if outcome.files:
        print(f"results     {', '.join(str(file) for file in outcome.files)}")
    if outcome.failure is not None:
        print(f"ct_triage: {outcome.message}", file=sys.stderr)
        logging.getLogger("ct_triage").debug("traceback", exc_info=outcome.failure)
    return outcome.exit_code


def _parse(argv: list[str] | None) -> argparse.Namespace:
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        prog="ct_triage",
        description="Chest CT study in, DICOM SEG and TID 1500 severity report out."
        " Not for clinical use.",
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        default=environment("HOLOSCAN_INPUT_PATH"),
        help="folder with a CT study (default: $HOLOSCAN_INPUT_PATH)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=environment("HOLOSCAN_OUTPUT_PATH"),
        help="folder for the results, made if need be (default: $HOLOSCAN_OUTPUT_PATH)",
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        default=environment("HOLOSCAN_MODEL_PATH", str(REPOSITORY_BUNDLES)),
        help="folder that holds the bundles (default: $HOLOSCAN_MODEL_PATH or %(default)s)",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=environment("CT_TRIAGE_CONFIG") or None,
        help="configuration in YAML (default: $CT_TRIAGE_CONFIG, or the settings of"
        " configuration.yaml beside this file)",
    )
    parser.add_argument(
        "-l",
        "--log-level",
        type=str.upper,
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        default="INFO",
        help="how much to tell on standard error (default: INFO)",
    )
    arguments = parser.parse_args(argv)
    for option in ("input", "output"):
        if getattr(arguments, option) is None:
            parser.error(f"give --{option} or set HOLOSCAN_{option.upper()}_PATH")
    for option in ("input", "model"):
        if not getattr(arguments, option).is_dir():
            parser.error(f"--{option}: {getattr(arguments, option)} is not a folder")
    return arguments


def _prepare_holoscan() -> None:
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "ERROR")
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    enough = resource.RLIM_INFINITY
    if soft != enough and soft < STACK_BYTES and (hard == enough or hard >= STACK_BYTES):
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))


if __name__ == "__main__":
    end_on_sigterm()
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # The results are on the disk; taking torch and Holoscan apart would be a second for nothing.
    os._exit(exit_code)
