"""``python -m tools.bench.plot RESULTS PNG``: stages as bars, time and memory over slices."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def main(results_file: Path, picture: Path) -> None:
    """Draw one results file."""
    results = json.loads(results_file.read_text())
    figure, (bars, times, memory) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    stages = results["stages"]
    seconds = [stages[name]["cpu_s"] for name in stages]
    medians = [number["median"] for number in seconds]
    spread = [
        [number["median"] - number["low"] for number in seconds],
        [number["high"] - number["median"] for number in seconds],
    ]
    bars.barh(list(stages), medians, xerr=spread, color="#4d8ed6")
    bars.invert_yaxis()
    bars.set_xlabel(f"processor seconds at {results['settings']['stages_at']} slices")
    sizes = results["application"]
    slices = [int(count) for count in sizes]
    for name, label in (("wall_s", "clock"), ("cpu_s", "processor")):
        times.plot(slices, [sizes[c][name]["median"] for c in sizes], "o-", label=label)
    times.legend()
    times.set(xlabel="slices", ylabel="seconds", ylim=(0, None))
    memory.plot(slices, [sizes[c]["peak_gb"]["median"] for c in sizes], "o-", color="#eb501e")
    memory.set(xlabel="slices", ylabel="peak memory in GB", ylim=(0, None))
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
