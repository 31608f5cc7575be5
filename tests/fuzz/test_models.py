"""Damaged model files and specifications: a network or a ModelError."""

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_triage.errors import ModelError
from ct_triage.network import SliceNetwork

GOOD = {"spacing_mm": [2.0, 2.0], "hu_window": [-1000, 600], "threshold": 0.5, "divisor": 16}
GOOD |= {"temperature": 1.0, "context_mm": 5.0, "smooth_slices_mm": 3.0}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)


class Identity(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


@pytest.fixture(scope="module")
def module() -> torch.jit.ScriptModule:
    return torch.jit.script(Identity())


@given(changes=st.dictionaries(st.sampled_from(sorted(GOOD)), values), extra=values)
def test_specifications(module: torch.jit.ScriptModule, changes: dict, extra: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        models.mkdir()
        files = {
            "inference.json": json.dumps({**GOOD, **changes, "extra": extra}),
            "metadata.json": json.dumps({"name": "fuzz", "version": "1.0"}),
        }
        torch.jit.save(module, str(models / "model.ts"), _extra_files=files)
        digest = hashlib.sha256((models / "model.ts").read_bytes()).hexdigest()
        (models / "SHA256SUMS").write_text(f"{digest}  model.ts\n")
        try:
            network = SliceNetwork.load(Path(folder))
        except ModelError:
            return
    assert 0 <= network.threshold <= 1
    assert network.hu_window[0] < network.hu_window[1]
    assert network.divisor >= 1
    assert network.temperature > 0
    assert network.context_mm is None or network.context_mm > 0
    assert network.smooth_slices_mm >= 0


def test_another_file_than_the_hashed_one_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    torch.save({"weights": torch.zeros(2)}, models / "model.ts")
    (models / "SHA256SUMS").write_text(f"{'0' * 64}  model.ts\n")
    with pytest.raises(ModelError, match="does not match SHA256SUMS"):
        SliceNetwork.load(tmp_path)
