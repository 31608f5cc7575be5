"""``python -m tools.bench.limits BUNDLE``: what this machine can do, and what a network gets of it.

BUNDLE is a slice network's folder. Prints JSON: the rate of matrix products in float32 and
bfloat16, of copying in memory, and of the network's convolutions.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ct_triage.memory import use_large_pages
from ct_triage.network import BATCH_SLICES, SliceNetwork

SIZE = 2048
COPIED_FLOATS = 2**26
# What the application feeds it at a time: slices of a body at 2 mm.
IMAGES = (BATCH_SLICES, 1, 160, 192)
REPEATS = 7


@torch.inference_mode()
def main(bundle: Path) -> dict[str, float]:
    """Measure, each the median of some repeats."""
    use_large_pages()
    a, b = torch.randn(2, SIZE, SIZE)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    source, target = torch.zeros(2, COPIED_FLOATS)
    network = SliceNetwork.load(bundle).module
    images = torch.rand(IMAGES).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        network(images)
    product_gflop = 2 * SIZE**3 / 1e9
    return {
        "float32_gflop_s": product_gflop / _seconds(lambda: a @ b),
        "bfloat16_gflop_s": product_gflop / _seconds(lambda: low_a @ low_b),
        # Each number is read once and written once.
        "copy_gb_s": 2 * 4 * COPIED_FLOATS / 1e9 / _seconds(lambda: target.copy_(source)),
        "network_gflop_s": counter.get_total_flops() / 1e9 / _seconds(lambda: network(images)),
    }


def _seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
