"""Everything that is measured, in one run, so that ratios are of one machine in one mood."""

import datetime
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from tools.bench.measure import BenchError, application, cost_of, told, worker

Numbers = dict[str, float]


def measure_all(
    scratch: Path,
    *,
    models: Path,
    counts: list[int],
    stages_at: int,
    peers_at: int,
    matrix: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    """Measure the application at several sizes, its stages, the machine, and the peers.

    Returns
    -------
    dict
        As in ``results.json``: seconds, 10^9 bytes and GFLOP/s; each number that was measured
        more than once is a dictionary of ``median``, ``low`` and ``high``.
    """
    studies, result = scratch / "studies", scratch / "result"
    needed = sorted({*counts, stages_at, peers_at})
    cost_of(worker("studies", studies, matrix, *needed), scratch, threads)

    def repeated(count: int) -> dict[str, Numbers]:
        # The longest run once: its spread says little and its time is most of the whole.
        times = 1 if count > 300 else repeats
        runs = [
            cost_of(application(studies / str(count), result), scratch, threads).numbers
            for _ in range(times)
        ]
        return spreads(runs)

    sizes = {str(count): repeated(count) for count in counts}
    staged = [
        told(
            cost_of(
                worker("stages", studies / str(stages_at), scratch / "staged", models),
                scratch,
                threads,
            )
        )
        for _ in range(repeats)
    ]
    stages = {name: spreads([run[name] for run in staged]) for name in staged[0]}
    limits = told(
        cost_of(
            worker("limits", models / "lung_segmentation"),
            scratch,
            threads,
        )
    )
    results = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(threads),
        "settings": {"matrix": matrix, "stages_at": stages_at, "peers_at": peers_at},
        "application": sizes,
        "stages": stages,
        "limits": limits,
        "peers": _peers(studies / str(peers_at), scratch, models, threads),
    }
    own = sizes.get(str(peers_at)) or repeated(peers_at)
    results["ratios"] = _ratios(results, own)
    return results


def spreads(runs: list[Numbers]) -> dict[str, Numbers]:
    """Median and extremes of each number over several runs."""
    spread = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        spread[name] = {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
        }
    return spread


def machine(threads: int) -> dict[str, object]:
    """Describe the processor and the versions, and nothing that names the machine."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {"processor": model, "threads": threads, "python": sys.version.split()[0]}


def _peers(study: Path, scratch: Path, models: Path, threads: int) -> dict[str, Any]:
    peers: dict[str, Any] = {}
    try:
        command = worker("stock_chain", study, scratch / "chain", models)
        peers["stock_chain"] = cost_of(command, scratch, threads).numbers
    except BenchError as error:
        peers["stock_chain"] = {"left_out": str(error)}
    peers["lungmask"] = told(cost_of(worker("lungmask_peer", study, models), scratch, threads))
    return peers


def _ratios(results: dict[str, Any], own: dict[str, Numbers]) -> Numbers:
    """Return what counts on a noisy machine; of each, less is better.

    ``..._over_stock_chain`` and ``lungs_over_lungmask`` are of the same study, ``matrix_over_...``
    is how far the network stays behind the machine, and ``cpu_per_slice_...`` compares the time of
    a slice in the largest study and in the smallest.
    """
    ratios = {}
    chain, lungmask = results["peers"]["stock_chain"], results["peers"]["lungmask"]
    if "left_out" not in chain:
        for name in ("cpu_s", "peak_gb"):
            ratios[f"{name}_over_stock_chain"] = own[name]["median"] / chain[name]
    if "left_out" not in lungmask:
        ratios["lungs_over_lungmask"] = lungmask["ct_triage_s"] / lungmask["lungmask_s"]
    limits = results["limits"]
    ratios["matrix_over_network_rate"] = limits["float32_gflop_s"] / limits["network_gflop_s"]
    counts = sorted(results["application"], key=int)
    if len(counts) > 1:
        small, large = counts[0], counts[-1]
        per_slice = {
            count: results["application"][count]["cpu_s"]["median"] / int(count)
            for count in (small, large)
        }
        ratios["cpu_per_slice_large_over_small"] = per_slice[large] / per_slice[small]
    return ratios
