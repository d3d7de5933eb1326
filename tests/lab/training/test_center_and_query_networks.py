"""The networks of CenterNet and DETR before training: their shapes, and that they start where the data are."""

import math

import pytest
import torch

from lossatlas.boxes.priors import point_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, count_parameters
from lossatlas.lab.networks.queries import LAYERS
from lossatlas.lab.registry import build_network

SIDES = torch.tensor([[16.0, 64.0], [32.0, 32.0], [0.0, 9.0]])
"""The last one has no area; the geometric mean of the others is 32."""


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_centers_start_with_the_prior_and_the_mean_size(images):
    outputs = build_network("centernet", Facts(4, 96, SIDES), seed=1)(images)
    assert outputs.heatmap_logits.shape == (2, 4, 16, 24)
    assert outputs.stride == 4
    probability = outputs.heatmap_logits.sigmoid()
    assert probability.mean().item() == pytest.approx(PRIOR, rel=0.1)
    assert outputs.sizes.log().mean().item() == pytest.approx(math.log(32 / 4), abs=0.1)
    assert outputs.offsets.mean().item() == pytest.approx(0.5, abs=0.1)
    assert outputs.sizes.min().item() > 0


def test_queries_start_on_their_cells_with_the_prior_and_the_mean_size(images):
    outputs = build_network("detr", Facts(4, 96, SIDES), seed=1)(images)
    assert outputs.class_logits.shape == (LAYERS + 1, 2, 24, 5)
    assert outputs.image_sizes.tolist() == [[64, 96]] * 2
    nothing = outputs.class_logits.softmax(-1)[..., -1]
    assert nothing.mean().item() == pytest.approx(1 / (1 + 4 * PRIOR), abs=0.02)
    points, _ = point_grid([(4, 6)], [16])
    boxes = outputs.boxes * torch.tensor([96, 64, 96, 64])
    assert (boxes[..., :2] - points).abs().max().item() < 8
    assert boxes[..., 2:].log().mean().item() == pytest.approx(math.log(32), abs=0.1)


@pytest.mark.parametrize("objective", ["centernet", "detr"])
def test_they_are_small_and_refuse_other_sizes(objective):
    network = build_network(objective, Facts(80), seed=0)
    assert count_parameters(network) < 1_000_000
    with pytest.raises(ValueError, match=r"`images` must have shape .*\(1, 3, 32, 40\)"):
        network(torch.zeros(1, 3, 32, 40))


def test_the_mean_side_of_unknown_data_is_an_eighth_of_the_image():
    assert Facts(3, 320).mean_log_side() == pytest.approx(math.log(40))
    assert Facts(3, 320, SIDES).mean_log_side() == pytest.approx(math.log(32))
    assert Facts(3, 320, SIDES[2:]).mean_log_side() == pytest.approx(math.log(40))
