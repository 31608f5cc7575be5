"""The second look: one look in training, the mean of two probabilities otherwise."""

import pytest
import torch
import torch.nn.functional as F
from lesion_segmentation_2d import SecondLook


class Column(torch.nn.Module):
    """A logit that depends on the column and on the picture, so that mirroring shows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 4 - 2 + torch.arange(image.shape[-1], dtype=torch.float32)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))


def test_training_sees_the_picture_once(image):
    module = SecondLook(Column()).train()
    torch.testing.assert_close(module(image), Column()(image))


def test_a_flat_picture_gives_the_mean_of_both_sides():
    flat = torch.full((1, 1, 8, 6), 0.3)
    logits = Column()(flat)
    expected = 0.5 * (logits.sigmoid() + logits.flip(-1).sigmoid())
    torch.testing.assert_close(SecondLook(Column()).eval()(flat).sigmoid(), expected)


def test_the_second_picture_is_smoothed(image):
    class Identity(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image

    both = SecondLook(Identity(), sigma_pixels=0.8).eval()(image).sigmoid()
    second = 2 * both - image.sigmoid()
    smoothed = torch.log(second / (1 - second))
    assert smoothed.std() < 0.5 * image.std()
    assert smoothed.mean() == pytest.approx(float(image.mean()), abs=0.03)


def test_each_slice_is_smoothed_by_itself():
    three = torch.zeros(2, 3, 12, 10)
    three[1, 2, 5, 4] = 1

    class Channel(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, 2:]

    spread = SecondLook(Channel()).eval()(three).sigmoid() - 0.5
    assert not spread[0].any()
    assert spread[1, 0, 5, 4] > spread[1, 0, 5, 5] > spread[1, 0, 4, 5] > 0
    assert not SecondLook(Channel()).eval()(three.flip(1)).any()


def test_certain_looks_stay_finite():
    certain = torch.full((1, 1, 4, 4), 50.0)

    class Sure(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image

    torch.testing.assert_close(SecondLook(Sure()).eval()(certain), certain)
    torch.testing.assert_close(SecondLook(Sure()).eval()(-certain), -certain)


def test_it_adds_nothing_to_a_checkpoint_and_scripts(image):
    module = SecondLook(torch.nn.Conv2d(1, 1, 3, padding=1)).eval()
    assert set(module.state_dict()) == {"network.weight", "network.bias"}
    torch.testing.assert_close(torch.jit.script(module)(image), module(image))
    assert F.l1_loss(module(image), module.network(image)) > 0
