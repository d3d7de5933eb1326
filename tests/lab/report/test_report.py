import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lossatlas.lab.comparison import compare
from lossatlas.lab.plan import read_plan
from lossatlas.lab.report import write_report
from lossatlas.lab.report.builder import read_log
from tests.lab.comparison.fakes import FakeTraining, fake_data

LOADING = {"href", "src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """What a page consists of: its tags, what it loads, and whether its tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        self.loaded += [value for name, value in values.items() if name in LOADING]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data.strip())

    def of(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """The attributes of every element of a tag, of those with a class if one is given."""
        return [values for name, values in self.tags if name == tag and kind in values.get("class", "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three losses with three seeds, one of whose trials failed."""
    out = tmp_path_factory.mktemp("comparison")
    training = FakeTraining(
        advantage={"ciou": 0.05},
        fails=lambda config: config.losses["box"] == "focal_eiou(gamma=1.0)" and config.seed == 2,
    )
    vary = ["box=giou,ciou,focal_eiou(gamma=1.0)"]
    compare("scenes", out=out, vary=vary, seeds=3, steps=20, trainer=training.trainer())
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """Its report."""
    return Page((folder / "report.html").read_text())


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.open == []
    assert len(page.of("h1")) == 1
    assert page.of("meta")[1]["name"] == "viewport"


def test_nothing_is_loaded_from_elsewhere(folder: Path, page: Page) -> None:
    assert page.loaded
    for value in page.loaded:
        assert value.startswith(("data:image/jpeg;base64,", "#")), value[:60]
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", text)
    assert not page.of("script")
    assert not page.of("link")


def test_every_reference_inside_the_page_has_its_target(page: Page) -> None:
    targets = {values["id"] for _, values in page.tags if "id" in values}
    assert len(targets) == len([1 for _, values in page.tags if "id" in values])
    used = {values["href"].removeprefix("#") for values in page.of("use")}
    assert used
    assert used <= targets


def test_the_images_can_be_decoded(page: Page) -> None:
    images = page.of("image")
    assert len(images) == 8
    for values in images:
        picture = Image.open(io.BytesIO(base64.b64decode(values["href"].partition(",")[2])))
        assert picture.size == (64, 48)


def test_each_image_is_shown_with_ground_truth_and_every_variant(page: Page) -> None:
    panels = page.of("svg", "panel")
    assert len(panels) == 8 * 4
    names = [values["aria-label"].split(", ")[1].split(":")[0] for values in panels[:4]]
    assert names == ["ground truth", "giou", "ciou", "focal_eiou(gamma=1.0)"]


def test_the_numbers_are_those_of_the_summary(folder: Path, page: Page) -> None:
    content = json.loads((folder / "summary.json").read_text())
    assert content["headline"] in page.texts
    for variant in content["variants"]:
        assert variant["verdict"] in page.texts
        for metric in ("AP", "AP50", "AP75"):
            assert f"{variant['metrics'][metric]['mean']:.3f}" in page.texts
    for note in content["notes"]:
        assert note in page.texts


def test_curves_of_every_term_and_of_ap(page: Page) -> None:
    labels = {values["aria-label"] for values in page.of("svg", "chart")}
    assert {"AP on test", "AP50 on test", "training loss: box", "training loss: class"} <= labels
    assert {f"{metric}, difference to giou" for metric in ("AP", "AP50", "AP75")} <= labels


def test_what_a_reader_needs_to_repeat_it(folder: Path, page: Page) -> None:
    assert read_plan(folder).command in page.texts
    text = "\n".join(page.texts)
    assert "failed: the loss became nan at step 3" in text
    assert "zero-area box (left out): 1" in text
    assert "learning rate" in text


def test_names_from_the_data_are_escaped(folder: Path, page: Page) -> None:
    assert "<square>" in page.texts
    assert "<square>" not in (folder / "report.html").read_text()


def test_writing_it_again_gives_the_same_page(folder: Path) -> None:
    before = (folder / "report.html").read_text()
    assert write_report(folder, fake_data()).read_text() == before


def test_a_comparison_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    def stop(config: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("scenes", out=tmp_path, vary=["box=giou,ciou"], trainer=FakeTraining(fails=stop).trainer(), steps=5)
    page = Page(write_report(tmp_path, fake_data()).read_text())
    assert "not finished" in page.texts
    assert "0 of 6 trials are finished; the numbers are of those." in page.texts


def test_one_variant_with_one_seed_has_a_report(tmp_path: Path) -> None:
    compare("scenes", out=tmp_path, seeds=1, steps=5, trainer=FakeTraining().trainer())
    page = Page((tmp_path / "report.html").read_text())
    assert not any("difference to" in values["aria-label"] for values in page.of("svg", "chart"))
    assert len(page.of("svg", "panel")) == 8 * 2


def test_many_variants_have_a_report(tmp_path: Path) -> None:
    vary = ["box=" + ",".join(f"focal_eiou(gamma={number / 10})" for number in range(1, 9))]
    compare("scenes", out=tmp_path, vary=vary, seeds=2, steps=5, trainer=FakeTraining().trainer())
    page = Page((tmp_path / "report.html").read_text())
    styles = {
        (values["class"], values["stroke-dasharray"])
        for values in page.of("line", "line")
        if "stroke-dasharray" in values
    }
    assert len(styles) == 8  # colours repeat with another dash


def test_a_log_that_was_cut_off_is_read_to_its_last_whole_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]
    assert list(read_log(tmp_path / "missing")) == []
