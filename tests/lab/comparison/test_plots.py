from pathlib import Path
from typing import get_args

import pytest
import torch

from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.loss_specs import LossSpec, loss_options, parse_loss, required_tensors
from lossatlas.lab.map_views import MAPS, SIDE
from lossatlas.lab.plots import plot_loss
from lossatlas.lab.portraits import FAMILIES, RANGES, VIEWS, maps, term_names, views
from lossatlas.lab.views import sample
from lossatlas.losses.catalog import CATALOG, InputKind


def test_every_kind_of_input_has_views() -> None:
    assert set(VIEWS) == set(get_args(InputKind))


@pytest.mark.parametrize("name", CATALOG)
def test_every_loss_of_the_catalogue_can_be_drawn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossatlas.lab.views.SAMPLES", 41)
    monkeypatch.setattr("lossatlas.lab.views.SINGLE_SAMPLES", 7)
    spec = LossSpec(CATALOG[name], {})
    for view in views(spec):
        slopes = []
        for line in view.lines:
            x, value, gradient = sample(line, view)
            assert x.shape == value.shape == gradient.shape
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            slopes.append(gradient.abs().sum())
        assert any(slope > 0 for slope in slopes)
    assert plot_loss(spec, tmp_path / "loss.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.input_kind in MAPS])
def test_losses_of_maps_show_target_prediction_and_gradient(name: str) -> None:
    target, prediction, gradient = maps(LossSpec(CATALOG[name], {}))
    assert target.values.shape == prediction.values.shape == gradient.values.shape == (SIDE, SIDE)
    assert gradient.values.isfinite().all()
    assert gradient.values.abs().sum() > 0
    assert gradient.signed


def test_losses_of_no_maps_have_none() -> None:
    assert maps(parse_loss("giou")) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_the_values_that_are_drawn_are_of_an_option_and_hold_its_default(name: str) -> None:
    entry = CATALOG[name]
    option, values = FAMILIES[name]
    assert option in {*loss_options(entry), *required_tensors(entry)}
    default = loss_options(entry).get(option, values[0])
    assert default in values or name == "mpdiou_loss"  # which has no default
    assert 1 < len(values) <= 6


def test_ranges_are_of_losses() -> None:
    assert set(RANGES) <= set(CATALOG)


def test_the_main_option_has_a_line_for_each_value_until_it_is_given() -> None:
    positive, negative = views(parse_loss("sigmoid_focal"))
    assert (positive.title, negative.title) == ("positive (y = 1)", "negative (y = 0)")
    labels = [line.label for line in positive.lines]
    assert labels == ["gamma = 0", "gamma = 0.5", "gamma = 1", "gamma = 2 (default)", "gamma = 5"]
    (view,) = views(parse_loss("sigmoid_focal(gamma=1.0)"))
    given = view.lines[0].loss(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(given, positive.lines[2].loss(torch.zeros(1, dtype=torch.float64)))


def test_the_terms_of_a_loss_are_lines() -> None:
    assert term_names(CATALOG["associative_embedding_loss"]) == ("pull", "push")
    for view in views(parse_loss("associative_embedding")):
        assert [line.label for line in view.lines] == ["pull", "push"]


def test_an_option_that_is_needed_is_drawn_with_several_values() -> None:
    assert views(parse_loss("mpdiou"))[0].lines[0].label == "image_size = (2.0, 2.0)"


def test_the_box_is_drawn_where_the_axis_puts_it() -> None:
    shift, side, _ = views(parse_loss("giou"))
    for scene in shift.scenes:
        moved = scene.input.mean(0) - scene.target.mean(0)
        assert moved.tolist() == pytest.approx([scene.place, 0])
    for scene in side.scenes:
        assert (scene.input.amax(0) - scene.input.amin(0)).tolist() == pytest.approx([scene.place] * 2)


@pytest.mark.parametrize("name", ["giou", "smooth_l1", "sigmoid_focal", "quality_focal", "cross_entropy"])
def test_the_drawn_gradient_is_the_slope_of_the_drawn_value(name: str) -> None:
    for view in views(parse_loss(name)):
        for line in view.lines:
            x, value, gradient = sample(line, view)
            slope = (value[2:] - value[:-2]) / (x[2:] - x[:-2])
            smooth = (gradient[2:] - gradient[:-2]).abs() < 0.1  # away from kinks
            assert smooth.sum() > 400
            torch.testing.assert_close(slope[smooth], gradient[1:-1][smooth], atol=2e-3, rtol=1e-2)


def test_a_box_at_its_target_costs_nothing() -> None:
    shift, side, width = views(parse_loss("giou"))
    for view, place in ((shift, 0.0), (side, 1.0), (width, 1.0)):
        value = view.lines[0].loss(torch.tensor([place], dtype=torch.float64))
        assert value.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "signature"), [("giou.png", b"\x89PNG"), ("giou.svg", b"<?xml"), ("giou.pdf", b"%PDF")]
)
def test_formats(tmp_path: Path, name: str, signature: bytes) -> None:
    path = plot_loss(parse_loss("giou"), tmp_path / name)
    assert path.read_bytes().startswith(signature)


def test_options_that_cannot_be_drawn_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"joint_ohkm\(topk=99\) cannot be drawn: .*topk"):
        plot_loss(LossSpec(CATALOG["joint_ohkm_loss"], {"topk": 99}), tmp_path / "joint_ohkm.png")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must be one of \.png, \.svg, \.pdf, but got 'giou\.jpg'"):
        plot_loss(parse_loss("giou"), tmp_path / "giou.jpg")
    with pytest.raises(ArgumentError, match="there is no folder"):
        plot_loss(parse_loss("giou"), tmp_path / "missing" / "giou.png")
