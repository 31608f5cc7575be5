"""``python -m tools.bench.lungmask_peer STUDY MODELS``: lungs by lungmask and by the application.

lungmask's network has random weights, which cost what trained ones do. Prints seconds as JSON, or
why lungmask was left out.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from ct_triage.lungs import segment_lungs
from ct_triage.network import SliceNetwork
from ct_triage.reading import read_volume
from ct_triage.series import find_series


def main(study: Path, models: Path) -> dict[str, object]:
    """Time both on the same volume."""
    try:
        from lungmask.mask import LMInferer
        from lungmask.resunet import UNet
    except ImportError as error:
        return {"left_out": f"lungmask cannot be imported ({error.name})"}
    volume = read_volume(find_series(study))
    network = SliceNetwork.load(models / "lung_segmentation")
    start = time.perf_counter()
    segment_lungs(volume, network)
    own_s = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".pth") as weights:
        # As lungmask makes its own.
        unet = UNet(
            n_classes=3,
            padding=True,
            depth=5,
            up_mode="upsample",
            batch_norm=True,
            residual=False,
        )
        torch.save(unet.state_dict(), weights.name)
        lungmask = LMInferer(modelpath=weights.name, force_cpu=True, tqdm_disable=True)
    start = time.perf_counter()
    lungmask.apply(volume.voxels)
    return {"lungmask_s": time.perf_counter() - start, "ct_triage_s": own_s}


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:3]))))
