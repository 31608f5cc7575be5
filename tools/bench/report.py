"""Results as JSON, as a table and as a plot, and their comparison with stored ones."""

import json
from pathlib import Path
from typing import Any

from tools.bench.measure import BenchError, cost_of, worker

# A ratio of one run differs from that of the next by this much with other work beside it.
TOLERATED = 1.3


def read_results(file: Path) -> dict[str, Any]:
    """Read stored results.

    Raises
    ------
    BenchError
        If there are none.
    """
    try:
        results = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{file}: no stored results; run `make bench` first") from error
    if "ratios" not in results:
        raise BenchError(f"{file}: holds no ratios; run `make bench` again")
    return dict(results)


def check(ratios: dict[str, float], stored: dict[str, float]) -> list[str]:
    """Return a line for each ratio that is clearly worse than the stored one."""
    return [
        f"{name}: {ratios[name]:.2f}, stored {before:.2f}; more than {TOLERATED} times as much"
        for name, before in stored.items()
        if name in ratios and ratios[name] > TOLERATED * before
    ]


def write_results(results: dict[str, Any], folder: Path) -> str:
    """Write ``results.json``, ``results.md`` and ``results.png``; return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    file.write_text(json.dumps(results, indent=2) + "\n")
    text = table(results)
    (folder / "results.md").write_text(text)
    cost_of(worker("plot", file, folder / "results.png"), folder, 1)
    for left in ("output.txt", "errors.txt"):
        (folder / left).unlink()
    return text


def table(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    machine, limits = results["machine"], results["limits"]
    lines = [
        "# Measured",
        "",
        f"{results['date']}, {machine['processor']}, {machine['threads']} threads, Python"
        f" {machine['python']}; median (lowest to highest) of the runs.",
        "",
        "| slices | wall s | CPU s | peak GB |",
        "|---|---|---|---|",
    ]
    for count, cost in results["application"].items():
        cells = (_spread(cost[name]) for name in ("wall_s", "cpu_s", "peak_gb"))
        lines.append(f"| {count} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| stage at {results['settings']['stages_at']} slices | wall s | CPU s |",
        "|---|---|---|",
    ]
    for name, cost in results["stages"].items():
        lines.append(f"| {name} | {_spread(cost['wall_s'])} | {_spread(cost['cpu_s'])} |")
    share = limits["network_gflop_s"] / limits["float32_gflop_s"]
    lines += [
        "",
        "| machine | |",
        "|---|---|",
        f"| matrix product, float32 | {limits['float32_gflop_s']:.0f} GFLOP/s |",
        f"| matrix product, bfloat16 | {limits['bfloat16_gflop_s']:.0f} GFLOP/s |",
        f"| copying in memory | {limits['copy_gb_s']:.1f} GB/s |",
        f"| lung network | {limits['network_gflop_s']:.0f} GFLOP/s, {100 * share:.0f} % of the"
        " float32 product |",
        "",
        f"| peer at {results['settings']['peers_at']} slices | |",
        "|---|---|",
    ]
    for name, cost in results["peers"].items():
        numbers = (f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in cost.items())
        lines.append(f"| {name} | {', '.join(numbers)} |")
    lines += ["", "| ratio (less is better) | |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in results["ratios"].items()]
    return "\n".join(lines) + "\n"


def _spread(number: dict[str, float]) -> str:
    return f"{number['median']:.2f} ({number['low']:.2f} to {number['high']:.2f})"
