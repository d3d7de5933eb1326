import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lossatlas.lab.commands import app
from tests.lab.data.coco_files import annotation, content, write_split
from tests.lab.report.test_report import Page

OBJECTS = [
    annotation(71, bbox=(2, 2, 24, 24)),
    annotation(72, bbox=(4, 4, 3, 3), category=4),
    annotation(73, image=2, bbox=(5, 5, 20, 20), iscrowd=1),
]


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], prog_name="lossatlas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of one file, inspected with each sort of prior."""
    folder = tmp_path_factory.mktemp("inspected")
    file = write_split(folder, "train", content("train") | {"annotations": OBJECTS})
    for objective in ("fcos", "retinanet", "yolox"):
        result = inspect("--data", file, "--objective", objective, "--out", folder / objective)
        assert result.exit_code == 0, result.output
        (folder / f"{objective}.txt").write_text(result.output)
    return folder


def test_terminal_and_numbers_name_the_object_that_nothing_answers_for(folder: Path) -> None:
    found = json.loads((folder / "fcos" / "inspection.json").read_text())
    assert (found["images"], found["objects"], found["crowd_regions"]) == (2, 2, 1)
    (orphan,) = found["without_positives"]
    assert (orphan["file_name"], orphan["image_id"], orphan["annotation_id"]) == ("train1.png", 1, 72)
    assert (orphan["label"], orphan["overlap"], orphan["reason"]) == ("dog", 0.0, "met by none")
    text = (folder / "fcos.txt").read_text()
    assert "1 of 2 objects of train.json (50.0 %) has no prediction that answers for it." in text
    assert any(line.split()[:3] == ["train1.png", "72", "dog"] for line in text.splitlines())
    assert "1 crowd region is no object" in text


def test_says_what_the_assignment_depends_on(folder: Path) -> None:
    assert "fcos assigns by geometry alone" in (folder / "fcos.txt").read_text()
    assert "yolox looks at predictions to assign" in (folder / "yolox.txt").read_text()


@pytest.mark.parametrize("objective", ["fcos", "retinanet", "yolox"])
def test_the_page_is_well_formed_and_loads_nothing(folder: Path, objective: str) -> None:
    text = (folder / objective / "inspection.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.loaded
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in page.loaded)
    assert "By level" in page.texts
    numbers = json.loads((folder / objective / "inspection.json").read_text())
    drawn = len(page.of("circle", "prior"))
    assert drawn == numbers["predictions"]["positive"]
    assert len(page.of("rect", "anchor")) == (drawn if objective == "retinanet" else 0)
    for row in numbers["tables"]["By class"]:
        assert row["class"] in page.texts


def test_a_folder_and_the_digits_are_data_too(folder: Path, tmp_path: Path) -> None:
    assert inspect("--data", folder, "--out", tmp_path / "a").exit_code == 0
    result = inspect("--data", folder, "--split", "val")
    assert result.exit_code == 2
    assert "or the name of an annotation file" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective", "fcoss"), "unknown objective 'fcoss'; did you mean fcos?"),
        (("--objective", "segmentation"), "objective 'segmentation' assigns no boxes; valid: fcos, retinanet"),
        (("--data", "nowhere"), "got 'nowhere'"),
        (("--image-size", "0"), "--image-size must be at least 1, but got 0"),
    ],
)
def test_errors_name_what_is_valid(arguments: tuple[str, ...], message: str) -> None:
    result = inspect(*arguments)
    assert result.exit_code == 2
    assert message in result.output
