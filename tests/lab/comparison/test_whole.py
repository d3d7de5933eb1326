"""The whole path with real training, on scenes so small that it takes seconds."""

import json
from pathlib import Path
from typing import Any

import pytest

from lossatlas.lab.comparison import Trainer, compare
from lossatlas.lab.report.builder import read_log
from tests.lab.comparison.fakes import fake_data
from tests.lab.training.blobs import blobs_data


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["fcos", "retinanet"])
def test_a_real_comparison(tmp_path: Path, objective: str) -> None:
    arguments: dict[str, Any] = {
        "objective": objective,
        "vary": ["box=giou,smooth_l1(beta=0.1)", "cls=sigmoid_focal,quality_focal"],
        "seeds": 2,
        "steps": 4,
        "recipe": {"batch_size": 2, "evaluations": 2},
        "trainer": Trainer(load=lambda source, task: fake_data()),
    }
    summary = compare("scenes", out=tmp_path, **arguments)
    assert summary.complete
    assert not summary.failed
    assert len(summary.variants) == 4
    for folder in (tmp_path / "trials").glob("*/*"):
        assert json.loads((folder / "result.json").read_text())["steps"] == 4
        rows = list(read_log(folder))
        assert [row["step"] for row in rows if row["kind"] == "eval"] == [2, 4]
        assert {"box", "class", "total"} <= set(rows[0]["terms"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*/*")}
    assert compare("scenes", out=tmp_path, **arguments) == summary
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*/*")} == before


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["segmentation", "deep_segmentation"])
def test_a_real_comparison_of_masks(tmp_path: Path, objective: str) -> None:
    arguments: dict[str, Any] = {
        "task": "segmentation",
        "objective": objective,
        "vary": ["loss=cross_entropy,dice(squared=True),lovasz_hinge"],
        "seeds": 2,
        "steps": 4,
        "recipe": {"batch_size": 2, "evaluations": 2},
        "trainer": Trainer(load=lambda source, task: blobs_data()),
    }
    summary = compare("blobs", out=tmp_path, **arguments)
    assert summary.complete
    assert not summary.failed
    assert summary.primary_metric.name == "mIoU"
    terms = {"segmentation", "total"} | ({"auxiliary"} if objective == "deep_segmentation" else set())
    for folder in (tmp_path / "trials").glob("*/*"):
        assert set(next(read_log(folder))["terms"]) == terms
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="mask"') == 4 * 4  # of every test image the truth and three variants
    assert "IoU of each class" in page
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*/*")}
    assert compare("blobs", out=tmp_path, **arguments) == summary
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*/*")} == before


@pytest.mark.slow
def test_variants_of_a_seed_start_from_the_same_weights_and_images(tmp_path: Path) -> None:
    compare(
        "scenes",
        out=tmp_path,
        vary=["box=giou,diou"],
        seeds=2,
        steps=1,
        recipe={"batch_size": 2, "evaluations": 1},
        trainer=Trainer(load=lambda source, task: fake_data()),
    )
    # The class term of the first step does not depend on the box loss, so it tells weights and images apart.
    first = {
        (folder.parent.name, folder.name): next(read_log(folder))["terms"]["class"]
        for folder in (tmp_path / "trials").glob("*/*")
    }
    assert first["giou", "seed0"] == first["diou", "seed0"]
    assert first["giou", "seed1"] == first["diou", "seed1"]
    assert first["giou", "seed0"] != first["giou", "seed1"]


@pytest.mark.slow
def test_minutes_become_steps(tmp_path: Path) -> None:
    summary = compare(
        "scenes",
        out=tmp_path,
        vary=["box=giou"],
        seeds=1,
        minutes=0.005,
        recipe={"batch_size": 1, "evaluations": 1},
        trainer=Trainer(load=lambda source, task: fake_data()),
    )
    assert summary.steps >= 1
    assert json.loads((tmp_path / "trials" / "giou" / "seed0" / "result.json").read_text())["steps"] == summary.steps
