import pytest
import torch

from lossatlas.boxes.priors import point_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, ResidualBlock, count_parameters
from lossatlas.lab.registry import build_network
from lossatlas.objectives import FCOSOutputs, RetinaNetOutputs

OBJECTIVES = ("fcos", "retinanet")


@pytest.fixture(scope="module")
def network():
    return build_network("fcos", Facts(3), seed=0).eval()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_starts_with_the_prior_probability_of_every_class(objective):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs = build_network(objective, Facts(4), seed=1)(images)
    assert isinstance(outputs, {"fcos": FCOSOutputs, "retinanet": RetinaNetOutputs}[objective])
    probability = outputs.class_logits.sigmoid()
    assert probability.shape[2] == 4
    assert probability.mean().item() == pytest.approx(PRIOR, rel=0.1)
    assert PRIOR / 3 < probability.min() <= probability.max() < PRIOR * 3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_is_small_and_every_parameter_is_trained(objective):
    network = build_network(objective, Facts(80), seed=0)
    assert count_parameters(network) < 1_000_000
    for block in network.modules():
        if isinstance(block, ResidualBlock):  # what adds nothing yet would pass no gradient on
            torch.nn.init.ones_(block.norm.weight)
    outputs = network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    values = [value for value in vars(outputs).values() if value is not None and value.requires_grad]
    sum(value.square().sum() for value in values).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_weights_depend_on_the_seed_alone(objective):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = build_network(objective, Facts(3), seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    same, other = (
        build_network(objective, Facts(3), seed=7).state_dict(),
        build_network(objective, Facts(3), seed=8).state_dict(),
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_classes_start_alike_for_both_objectives_up_to_the_pyramid():
    points = build_network("fcos", Facts(3), seed=7).pyramid.state_dict()
    anchors = build_network("retinanet", Facts(3), seed=7).pyramid.state_dict()
    assert all(torch.equal(points[name], anchors[name]) for name in points)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 128), (96, 32)])
def test_takes_every_multiple_of_the_coarsest_stride(network, height, width):
    outputs = network(torch.zeros(2, 3, height, width))
    sizes = [(height // stride, width // stride) for stride in STRIDES]
    points, strides = point_grid(sizes, STRIDES)
    assert torch.equal(outputs.points, points)
    assert torch.equal(outputs.strides, strides)
    assert outputs.class_logits.shape == (2, len(points), 3)
    assert bool((outputs.distances > 0).all())


def test_refuses_other_sizes(network):
    with pytest.raises(ValueError, match=r"`images` must have shape .*\(1, 3, 32, 40\)"):
        network(torch.zeros(1, 3, 32, 40))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_predictions_are_in_the_order_of_their_places(objective):
    """Level by level, row by row, the anchors of a cell side by side; compared with the maps of the head."""
    network = build_network(objective, Facts(3), seed=0).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network(images)
        maps = [(network.classes(level)[0], network.boxes(level)[0]) for level in network.pyramid(images)]
    place = 0
    for (classes, boxes), stride in zip(maps, STRIDES, strict=True):
        for row in range(64 // stride):
            for column in range(96 // stride):
                center = torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride])
                for anchor in range(len(classes) // 3):
                    logits = classes[3 * anchor : 3 * anchor + 3, row, column]
                    assert torch.equal(outputs.class_logits[0, place], logits)
                    if objective == "fcos":
                        assert torch.equal(outputs.points[place], center)
                        assert torch.equal(outputs.centerness[0, place], boxes[4, row, column])
                        torch.testing.assert_close(outputs.distances[0, place].log(), boxes[:4, row, column])
                    else:
                        x1, y1, x2, y2 = outputs.anchors[place]
                        assert torch.equal(torch.stack(((x1 + x2) / 2, (y1 + y2) / 2)), center)
                        deltas = boxes[4 * anchor : 4 * anchor + 4, row, column]
                        assert torch.equal(outputs.deltas[0, place], deltas)
                    place += 1
    assert place == outputs.class_logits.shape[1]


@pytest.mark.parametrize(
    ("objective", "classes", "message"),
    [("yolo", 3, "unknown objective 'yolo'"), ("fcos", 0, "`num_classes`")],
)
def test_refuses_what_it_cannot_build(objective, classes, message):
    with pytest.raises(ValueError, match=message):
        build_network(objective, Facts(classes), seed=0)
