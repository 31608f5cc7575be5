"""``python -m tools.bench.stock_chain STUDY RESULT MODELS``: two of the networks, stock operators.

Loader, selector, volume, one bundle operator and one segmentation writer for each network. No
right and left, no severity, no report: the chain has no operators for them.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSegmentationWriterOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
)
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from monai.deploy.operators.monai_bundle_inference_operator import (
    IOMapping,
    MonaiBundleInferenceOperator,
)
from pydicom.sr.codedict import codes

NETWORKS = ("lung_segmentation", "lesion_segmentation_2d")


class StockChain(Application):
    """Both bundles on the first series of a study."""

    def __init__(self, study: Path, result: Path, models: Path) -> None:
        self.study, self.result, self.models = study, result, models
        super().__init__()

    def compose(self) -> None:
        """Connect the operators as the SDK's examples do."""
        once = CountCondition(self, 1)
        load = DICOMDataLoaderOperator(self, once, input_folder=self.study, name="load")
        select = DICOMSeriesSelectorOperator(self, name="select")
        to_volume = DICOMSeriesToVolumeOperator(self, name="to_volume")
        self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
        series = "study_selected_series_list"
        self.add_flow(select, to_volume, {(series, series)})
        for name in NETWORKS:
            infer = MonaiBundleInferenceOperator(
                self,
                app_context=AppContext({}),
                input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
                output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
                bundle_path=_for_the_operator(self.models / name, self.result / name),
                name=f"infer_{name}",
            )
            write = DICOMSegmentationWriterOperator(
                self,
                segment_descriptions=[
                    SegmentDescription(
                        segment_label=name,
                        segmented_property_category=codes.SCT.Organ,
                        segmented_property_type=codes.SCT.Lung,
                        algorithm_name=name,
                        algorithm_version="1",
                    )
                ],
                output_folder=self.result / name,
                name=f"write_{name}",
            )
            self.add_flow(to_volume, infer, {("image", "image")})
            self.add_flow(select, write, {(series, series)})
            self.add_flow(infer, write, {("pred", "seg_image")})


def _for_the_operator(bundle: Path, folder: Path) -> Path:
    """Copy a TorchScript file with an axis of channels added where the operator leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {"inference.json": "", "metadata.json": ""}
    module = torch.jit.load(str(bundle / "models" / "model.ts"), _extra_files=extra)
    config = json.loads(extra["inference.json"])
    # The operator takes LoadImaged out, and with it what makes the axis.
    channel = {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"}
    config["preprocessing"]["transforms"].insert(1, channel)
    extra["inference.json"] = json.dumps(config)
    file = folder / "model.ts"
    torch.jit.save(module, str(file), _extra_files=extra)
    return file


if __name__ == "__main__":
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "ERROR")
    study, result, models = map(Path, sys.argv[1:4])
    StockChain(study, result, models).run()
    written = [name for name in NETWORKS if any((result / name).glob("*.dcm"))]
    if len(written) < len(NETWORKS):
        sys.exit(f"the chain wrote segmentations of {written or 'nothing'} only")
    print(json.dumps({"segmentations": len(written)}))
