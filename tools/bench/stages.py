"""``python -m tools.bench.stages STUDY RESULT MODELS``: seconds of each stage, as JSON."""

import json
import sys
import time
from pathlib import Path

from ct_triage.memory import use_large_pages

# The names of the table, and the steps of the pipeline that belong to each.
STAGES = {
    "scan": ("series",),
    "decode": ("volume",),
    "lungs": ("lungs",),
    "lesions": ("lesions",),
    "severity": ("findings",),
    "SEG": ("seg",),
    "SR": ("report",),
    "files": ("files",),
}


def main(study: Path, result: Path, models: Path) -> dict[str, dict[str, float]]:
    """Run the pipeline's steps one after the other.

    Returns
    -------
    dict
        ``wall_s`` and ``cpu_s`` of each stage; ``import`` is all before the first step, but for
        Python's own start by the clock, and ``rest`` the steps that are no stage.
    """
    use_large_pages()
    start = time.perf_counter()
    from ct_triage import runs  # noqa: F401
    from ct_triage.pipeline import Pipeline, parameters_of

    costs = {"import": {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time()}}
    stage_of = {step: stage for stage, steps in STAGES.items() for step in steps}
    costs |= {stage: {"wall_s": 0.0, "cpu_s": 0.0} for stage in (*STAGES, "rest")}
    results: dict[str, object] = {}
    for name, step in Pipeline(study, result, models).steps().items():
        wall, cpu = time.perf_counter(), time.process_time()
        results[name] = step(**{key: results[key] for key in parameters_of(step)})
        stage = costs[stage_of.get(name, "rest")]
        stage["wall_s"] += time.perf_counter() - wall
        stage["cpu_s"] += time.process_time() - cpu
    return costs


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]))))
