"""What MONAI itself checks of the bundles that take volumes."""

import pytest
from bundle_commands import BUNDLES_FOLDER, monai_command


@pytest.mark.parametrize(
    ("bundle", "sizes"),
    [
        ("lesion_segmentation_3d", ("--n", 2, "--any", 32)),
        ("lesion_ensemble", ("--n", 1, "--any", 33)),
    ],
)
def test_monai_finds_the_metadata_and_the_network_right(
    bundle: str, sizes: tuple[object, ...]
) -> None:
    for command in (
        ("verify_metadata", "--filepath", "configs/metadata_schema.json"),
        ("verify_net_in_out", "network_def", "--config_file", "configs/inference.json", *sizes),
    ):
        done = monai_command(
            *(*command, "--meta_file", "configs/metadata.json"), cwd=BUNDLES_FOLDER / bundle
        )
        assert done.returncode == 0, done.stderr[-2000:]
