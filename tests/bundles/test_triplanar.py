"""The triplanar lungs: slices, their networks and the average (CoRSAI 4.2)."""

import pytest
import torch
from lung_segmentation import RandOrthogonalSlicesd, Triplanar, TriplanarInferer


class _FirstChannel(torch.nn.Module):
    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        return slices[:, :1]


def test_drawn_slices_meet_in_one_voxel() -> None:
    volume = torch.arange(2 * 4**3, dtype=torch.float32).reshape(2, 4, 4, 4)
    draw = RandOrthogonalSlicesd(["image", "label"], num_samples=5)
    draw.set_random_state(0)
    samples = draw({"image": volume, "label": volume[:1], "name": "a"})
    assert len(samples) == 5
    for sample in samples:
        assert sample["image"].shape == (6, 4, 4)
        assert sample["label"].shape == (3, 4, 4)
        assert sample["name"] == "a"
        assert torch.equal(sample["image"][::2], sample["label"])
        across_first, across_second, across_third = (
            set(s.flatten().tolist()) for s in sample["label"]
        )
        assert len(across_first & across_second & across_third) == 1


def test_a_projection_has_weights_of_its_own() -> None:
    network = Triplanar(torch.nn.Conv2d(2, 1, 1))
    torch.nn.init.zeros_(network.projections[0].weight)
    slices = torch.rand(1, 6, 4, 4)
    other = slices.clone()
    other[:, :2] += 1
    assert torch.equal(network(slices), network(other))
    other[:, 2:4] += 1
    changed = (network(slices) - network(other)).abs().amax(dim=(0, 2, 3)) > 0
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_voxel_comes_back_to_its_place(batch_size: int) -> None:
    volume = torch.randn(2, 1, 8, 8, 8)
    result = TriplanarInferer(batch_size)(volume, Triplanar(_FirstChannel()))
    assert torch.allclose(result, volume, atol=1e-3)


def test_probabilities_are_averaged() -> None:
    def logits(slices: torch.Tensor) -> torch.Tensor:
        probability = torch.tensor([0.9, 0.6, 0.3])[None, :, None, None]
        return torch.logit(probability).expand(len(slices), 3, *slices.shape[2:])

    result = TriplanarInferer()(torch.zeros(1, 4, 8, 8, 8), logits)
    assert torch.allclose(result.sigmoid(), torch.tensor(0.6), atol=1e-5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cubes"):
        TriplanarInferer()(torch.zeros(1, 4, 8, 8, 6), Triplanar(_FirstChannel()))
