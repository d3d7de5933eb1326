from pathlib import Path

import pytest
import torch

from lossatlas.lab.loss_specs import ArgumentError, LossSpec, loss_options, parse_loss
from lossatlas.lab.plots import plot_loss
from lossatlas.lab.views import VIEWS, sample, views
from lossatlas.losses.catalog import CATALOG

NEEDED = {"image_size": (4.0, 4.0)}


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.input_kind in VIEWS])
def test_every_loss_of_a_kind_that_has_views_can_be_drawn(name: str) -> None:
    entry = CATALOG[name]
    needed = {option: NEEDED[option] for option in loss_options(entry) if option in NEEDED}
    for view in views(LossSpec(entry, needed)):
        for line in view.lines:
            x, value, gradient = sample(line, view)
            assert x.shape == value.shape == gradient.shape
            assert value.isfinite().all()
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


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


def test_a_kind_without_a_view_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossatlas.lab.views.VIEWS", {})
    with pytest.raises(ArgumentError, match="there is no plot of giou_loss, which takes boxes"):
        views(parse_loss("giou"))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must be one of \.png, \.svg, \.pdf, but got 'giou\.jpg'"):
        plot_loss(parse_loss("giou"), tmp_path / "giou.jpg")
    with pytest.raises(ArgumentError, match="there is no folder"):
        plot_loss(parse_loss("giou"), tmp_path / "missing" / "giou.png")
