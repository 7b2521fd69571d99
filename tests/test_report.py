"""The HTML report, on runs of a few steps on a part of the embedded photos."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lesa.errors import LesaError
from lesa.evaluation.report import evaluate
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, read_dataset, write_dataset
from lesa.learn.datasets.demo import unpack_demo
from lesa.learn.evaluate import evaluate_run
from lesa.learn.experiments.demo import demo_recipe
from lesa.learn.experiments.report import (
    ceiling_row,
    chance_row,
    chart,
    choose_photos,
    label_rows,
    validations,
    write_report,
)
from lesa.learn.train import train
from lesa.vectors import read_vectors, write_table

PHOTOS = {"train": 96, "validation": 30, "test": 400}
ODD = "<i>rock & roll</i>"
MAIN, CONTROL = "ten & more", "mean <pool>"
TWINS = {
    *("birds", "boats", "buildings", "cars", "dog", "flags", "flowers"),
    *("horses", "mountain", "rocks", "sign", "street", "toy", "tree"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The embedded data with fewer photos, and a label that would break the page if it were not escaped."""
    folder = tmp_path_factory.mktemp("report") / "data"
    unpack_demo(folder)
    whole = read_dataset(folder / "dataset")
    names = whole.vocabulary.names
    unseen = tuple(ODD if name == "water" else name for name in whole.vocabulary.unseen)
    vectors_CE = read_vectors(str(folder / "vectors.safetensors"), names)
    write_table(folder / "vectors.safetensors", unseen + whole.vocabulary.seen, vectors_CE)
    splits = {name: first(whole.split(name), count) for name, count in PHOTOS.items()}
    small = Dataset("part", Vocabulary(unseen, whole.vocabulary.seen), splits, whole.source)
    write_dataset(small, folder / "dataset")
    return folder


def first(split, count):
    return Split(split.photos[:count], Targets(split.targets.entries[:count], split.targets.rest))


@pytest.fixture(scope="module")
def evaluations(data):
    settings = {
        MAIN: {"recipe": "contrastive", "epochs": 3},
        "published": {"steps": 4, "validate_every": 2},
        CONTROL: {"recipe": "contrastive", "epochs": 3, "model": {"kind": "mean-pool"}},
    }
    runs = {
        title: train(demo_recipe(data, each), data.parent / f"run{i}")
        for i, (title, each) in enumerate(settings.items())
    }
    return {title: evaluate_run(run) for title, run in runs.items()}


@pytest.fixture(scope="module")
def page(evaluations, data):
    path = data.parent / "report.html"
    write_report(evaluations, path, main=MAIN, control=CONTROL)
    return path.read_text(encoding="utf-8")


class Balance(HTMLParser):
    """Collects the visible text and checks that every element is closed where it should be."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read(page):
    reader = Balance()
    reader.feed(page)
    assert reader.open == []
    return " ".join(" ".join(reader.text).split())


def test_the_table_has_the_metrics_of_every_run(page, evaluations):
    rows = re.findall(r'<tr class="run">.*?</tr>', page, flags=re.DOTALL)
    for evaluated, row in zip(evaluations.values(), rows, strict=True):
        expected = [
            f"{value:.1f}"
            for report in evaluated.reports["lesa"].values()
            for value in (report.f1[3], report.f1[5], report.mean_average_precision)
        ]
        assert re.findall(r">(\d+\.\d)</td>", row) == expected


def test_the_page_asks_for_nothing_from_outside_and_runs_nothing(page):
    for word in ("http", "<script", "<link", "<img", "@import", "src=", "url(//", "javascript:"):
        assert word not in page
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))
    assert not re.search(r"\bon\w+=", page)


def test_the_page_is_well_formed_and_names_are_escaped(page):
    text = read(page)
    for name in (MAIN, CONTROL, ODD):
        assert name not in page
        assert name in text


def test_the_page_tells_the_data_and_their_fingerprint(page, evaluations):
    text = read(page)
    assert "96 train, 30 validation, 400 test" in text
    for report in evaluations[MAIN].reports["lesa"].values():
        assert f"{report.labels} labels {report.positives_per_image:.3f} present per photo" in text


def test_the_page_draws_the_attentions_of_photos(page):
    maps = re.findall(r'<svg class="map".*?</svg>', page, flags=re.DOTALL)
    assert len(maps) == 4 * 6 + 10
    for drawn in maps:
        opacities = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', drawn)]
        assert len(opacities) == 49
        assert max(opacities) == 1


def test_the_same_report_is_written_twice(page, evaluations, tmp_path):
    write_report(evaluations, tmp_path / "report.html", main=MAIN, control=CONTROL)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_chance_is_what_random_scores_get(evaluations, data):
    targets_NC = read_dataset(data / "dataset").split("test").targets.dense(columns=slice(0, 44))
    random = np.random.default_rng(0)
    drawn = [evaluate(random.random(targets_NC.shape), targets_NC) for _ in range(400)]
    f1_3, f1_5, precision = chance_row(evaluations[MAIN]).metrics[:3]
    assert f1_3 == pytest.approx(np.mean([report.f1[3] for report in drawn]), rel=0.05)
    assert f1_5 == pytest.approx(np.mean([report.f1[5] for report in drawn]), rel=0.05)
    # The average precision of few photos lies a little above their share.
    mean = np.mean([report.mean_average_precision for report in drawn])
    assert precision < mean < precision + 1.5


def test_the_ceiling_is_what_the_targets_themselves_get_as_scores(evaluations, data):
    split = read_dataset(data / "dataset").split("test")
    targets_NC = split.targets.dense()
    expected = []
    for columns in (slice(0, 44), slice(None), slice(44, None)):
        report = evaluate(targets_NC[:, columns], targets_NC[:, columns])
        expected += [report.f1[3], report.f1[5], report.mean_average_precision]
    assert ceiling_row(evaluations[MAIN], split).metrics == pytest.approx(expected)


def test_labels_stand_in_the_order_of_the_main_run_and_twins_are_marked(evaluations, data):
    split = read_dataset(data / "dataset").split("test")
    rows = label_rows(evaluations[MAIN], evaluations[CONTROL], split)
    assert [row.main for row in rows] == sorted((row.main for row in rows), reverse=True)
    assert {row.name for row in rows if row.twin} == TWINS
    by_name = dict(zip(evaluations[CONTROL].run.vocabulary.unseen, range(44), strict=True))
    of_control = evaluations[CONTROL].reports["lesa"]["ZSL"].average_precision_C
    assert all(row.control == of_control[by_name[row.name]] for row in rows)
    assert all(
        row.photos == (split.targets.dense(columns=slice(0, 44))[:, by_name[row.name]] > 0).sum() for row in rows
    )


def test_photos_are_the_first_with_two_unseen_labels_that_are_new():
    present = [[0], [0, 1, 5], [1, 2], [2, 3], [5], [3, 4]]
    split = Split(tuple("abcdef"), Targets.from_present(present, labels=6))
    assert choose_photos(split, Vocabulary(tuple("vwxyz"), ("seen",))) == [1, 3]


def test_losses_are_averaged_between_validations():
    log = [
        {"step": 50, "loss": {"total": 4.0}},
        {"step": 100, "loss": {"total": 2.0}, "validation": {"F1@5": 7.0}},
        {"step": 130, "loss": {"total": 1.0}},
        {"step": 140, "loss": {"total": 5.0}, "validation": {"F1@5": 8.0}},
    ]
    assert list(validations(log)) == [(100, 3.0, 7.0), (140, 2.0, 8.0)]


def test_a_chart_takes_the_pages_colour_and_escapes_its_title():
    drawn = chart('loss "<&', {"#4f7be0": [(1, 3.0), (2, math.pi)]})
    assert "currentColor" in drawn
    assert "#4f7be0" in drawn
    assert 'aria-label="loss &#34;&lt;&amp;"' in drawn
    assert all(f"#{name}" in drawn for name in re.findall(r' id="([^"]*)"', drawn))


def test_runs_of_two_splits_are_refused(evaluations, tmp_path):
    mixed = {**evaluations, CONTROL: evaluate_run(evaluations[CONTROL].run, split="validation")}
    with pytest.raises(LesaError, match="evaluate them alike"):
        write_report(mixed, tmp_path / "report.html", main=MAIN, control=CONTROL)
    assert not (tmp_path / "report.html").exists()
