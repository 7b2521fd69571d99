"""The report on several runs on one data set: tables, curves, precision by label and attention maps in one HTML file.

This module prepares the data; `report.html` is the template. The report loads nothing from other files or the network.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from numpy.typing import NDArray

from lesa import __version__
from lesa.errors import LesaError
from lesa.evaluation.report import Report, task_columns
from lesa.files import write_text
from lesa.labels import Vocabulary, other_forms
from lesa.learn.datasets.dataset import Split, read_dataset
from lesa.learn.evaluate import Evaluation
from lesa.learn.experiments.tagged import TaggedPhoto
from lesa.learn.model import Output
from lesa.learn.predict import outputs
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model, read_log, training_seconds

# One colour per run, in the order of the runs. They are readable on white and on dark grey.
COLOURS = ("#4f7be0", "#159c86", "#d9822b", "#938d9e", "#c2559d", "#7a9a2e", "#b04a3a", "#3f9fc4")
# Placeholder for the text colour of the page, which depends on the reader's light or dark scheme.
INK = "#010203"
PHOTOS = 4
TOP = 3


@dataclass(frozen=True)
class ResultRow:
    """A row of the results table: the metrics of all tasks, in percent."""

    title: str
    metrics: tuple[float, ...]
    best: tuple[bool, ...]
    """Whether each metric is the highest of all runs."""
    seconds: float | None
    """Training time; None for chance and perfect scores."""


@dataclass(frozen=True)
class LabelRow:
    """An unseen label, and its average precision by the two compared runs, in percent."""

    name: str
    photos: int
    """Number of photos in which it is present."""
    main: float
    control: float
    twin: bool
    """Whether its singular or plural is a seen label. Then it is not really unseen."""


@dataclass(frozen=True)
class TagView:
    """A label with a high score for a photo, and the attention that decided its score."""

    label: str
    score: float
    present: bool
    attention: int
    """The number of the attention, from 1."""
    map_R: list[float]


@dataclass(frozen=True)
class PhotoView:
    """A photo: its present labels, the labels with the best scores, and the map of each attention."""

    name: str
    present: dict[str, list[str]]
    """`unseen` and `seen` -> present labels."""
    best: dict[str, list[TagView]]
    """`unseen` and `seen` -> labels with the best scores."""
    maps_MR: list[list[float]]


def write_report(
    evaluations: Mapping[str, Evaluation],
    path: Path,
    *,
    main: str,
    control: str,
    tagged: Sequence[TaggedPhoto] = (),
) -> None:
    """Write the HTML report on runs that were evaluated on the same split of one data set by the same rules.

    Args:
        evaluations: title -> evaluation, in the order of the tables.
        path: the HTML file.
        main: title of the run whose attention maps are drawn.
        control: title of the run with which `main` is compared, label by label.
        tagged: photos that the bundle in the package tagged.

    Raises:
        LesaError: the evaluations are of different data sets, splits or rules.
    """
    _refuse_mixed(evaluations)
    evaluated = evaluations[main]
    data = read_dataset(evaluated.run.recipe.dataset)
    split = data.split(evaluated.split)
    page = _template().render(
        version=__version__,
        colours=dict(zip(evaluations, cycle(COLOURS), strict=False)),
        data=data,
        split=evaluated.split,
        rules=_rules_of(evaluated),
        regions=evaluated.run.regions,
        vectors=evaluated.run.vectors_CE.shape[1],
        tasks=_reports_of(evaluated),
        rows=_result_rows(evaluations),
        recipes={title: _describe(each.run) for title, each in evaluations.items()},
        bounds=[chance_row(evaluated), ceiling_row(evaluated, split)],
        panels=_curves(evaluations, len(data.split("train").photos)),
        main=main,
        control=control,
        labels=label_rows(evaluated, evaluations[control], split),
        photos=_photo_views(evaluated.run, split),
        tagged=tagged,
    )
    write_text(path, page)


def _template() -> Template:
    """Return the template of the report. Every value is escaped, and a missing value is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("lesa.learn.experiments") / "report.html").read_text(encoding="utf-8"))


def _refuse_mixed(evaluations: Mapping[str, Evaluation]) -> None:
    """Refuse evaluations whose metrics cannot be compared in one table."""
    kinds = {(e.run.regions["data_set"], e.run.vocabulary, e.split, tuple(e.reports)) for e in evaluations.values()}
    if len(kinds) != 1:
        raise LesaError(
            f"a report needs runs of one data set, evaluated on one split by the same rules; "
            f"{', '.join(evaluations)} are not: evaluate them alike, or write a report for each"
        )


def _describe(run: Run) -> str:
    """Return the settings in which runs differ, in one line."""
    recipe = run.recipe
    kind = recipe.model.kind
    method = {"mean-pool": "mean region", "shared-attention": f"M = {recipe.model.attentions}"}.get(kind, kind)
    front = ", trainable front" if recipe.model.front and kind != "mean-pool" else ""
    length = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.steps} steps"
    vectors = "label vectors centred" if recipe.centred else "label vectors as they are"
    weights = {"last": "weights of the last step", "best": "weights that were best on validation"}[recipe.checkpoint]
    optimiser = f"{recipe.optimiser.kind} at {recipe.optimiser.learning_rate:g}"
    if recipe.loss.kind == "closed-form":
        return f"{method}; closed form; {vectors}"
    return f"{method}{front}; loss {recipe.loss.kind}; {optimiser}, {length}; {vectors}; {weights}"


def _rules_of(evaluated: Evaluation) -> str:
    """Return the name of the rules of the report: the first of the evaluation."""
    return next(iter(evaluated.reports))


def _reports_of(evaluated: Evaluation) -> dict[str, Report]:
    """Return the report of each task by these rules."""
    return evaluated.reports[_rules_of(evaluated)]


def _row_metrics(evaluated: Evaluation) -> tuple[float, ...]:
    """Return the metrics of a row of the table: for each task F1 at each K, then mAP, in percent."""
    return tuple(value for r in _reports_of(evaluated).values() for value in (*r.f1.values(), r.mean_average_precision))


def _result_rows(evaluations: Mapping[str, Evaluation]) -> list[ResultRow]:
    """Return a row of the table for each run."""
    table = {title: _row_metrics(evaluated) for title, evaluated in evaluations.items()}
    highest = [max(column) for column in zip(*table.values(), strict=True)]
    return [
        ResultRow(
            title=title,
            metrics=row,
            best=tuple(value == top for value, top in zip(row, highest, strict=True)),
            seconds=training_seconds(read_log(evaluations[title].run)),
        )
        for title, row in table.items()
    ]


def chance_row(evaluated: Evaluation) -> ResultRow:
    """Return the metrics of random scores: with p of C labels present per photo, P@K = AP = p / C and R@K = K / C."""
    row: list[float] = []
    for report in _reports_of(evaluated).values():
        p, C = report.positives_per_image, report.labels
        row += [100 * 2 * p * k / (C * (p + k)) for k in report.f1]
        row.append(100 * p / C)
    return ResultRow("chance", tuple(row), (False,) * len(row), None)


def ceiling_row(evaluated: Evaluation, split: Split) -> ResultRow:
    """Return the metrics of perfect scores: F1@K stays low if photos have fewer than K labels."""
    row: list[float] = []
    vocabulary = evaluated.run.vocabulary
    columns = task_columns(len(vocabulary.unseen), len(vocabulary.names))
    for task, report in _reports_of(evaluated).items():
        present_NC = split.targets.dense(columns=columns[task]) > 0
        hits = {k: np.minimum(present_NC.sum(axis=1), k).sum() for k in report.f1}
        row += [float(200 * hits[k] / (k * len(present_NC) + present_NC.sum())) for k in hits]
        row.append(float(100 * present_NC.any(axis=0).mean()))
    return ResultRow("perfect scores", tuple(row), (False,) * len(row), None)


def _curves(evaluations: Mapping[str, Evaluation], photos: int) -> dict[str, Markup]:
    """Return a chart for each validation metric and each loss of LESA, by title. A closed form has no curve.

    Args:
        evaluations: title -> evaluation.
        photos: number of training photos, to convert steps to epochs.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for evaluated, colour in zip(evaluations.values(), cycle(COLOURS), strict=False):
        recipe = evaluated.run.recipe
        per_epoch = math.ceil(photos / recipe.batch_size)
        if recipe.loss.kind == "closed-form":
            continue
        for step, loss, metric in validations(read_log(evaluated.run)):
            points = {f"validation {recipe.validation_metric}, percent": metric}
            if recipe.loss.kind in ("lesa", "contrastive"):
                points[f"training loss ({recipe.loss.kind})"] = loss
            for title, value in points.items():
                panels.setdefault(title, {}).setdefault(colour, []).append((step / per_epoch, value))
    return {title: chart(title, lines) for title, lines in sorted(panels.items())}


def validations(log: list[dict[str, Any]]) -> Iterator[tuple[int, float, float]]:
    """Yield the step, the mean loss since the last validation, and the metric of each validation."""
    total, steps, before = 0.0, 0, 0
    for line in log:
        total += line["loss"]["total"] * (line["step"] - before)
        steps += line["step"] - before
        before = line["step"]
        if "validation" in line:
            (metric,) = line["validation"].values()
            yield before, total / steps, metric
            total, steps = 0.0, 0


def chart(title: str, lines: Mapping[str, list[tuple[float, float]]]) -> Markup:
    """Draw lines as SVG. Text and axes have the text colour of the page.

    Args:
        title: the title, for readers who do not see the chart.
        lines: colour -> points.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9}
    style |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with rc_context(style):
        plot = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = plot.add_subplot(xlabel="epoch")
        # The recipes differ widely in their epochs.
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        for colour, points in lines.items():
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6)
        text = io.StringIO()
        plot.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline_svg(text.getvalue(), title)


def _inline_svg(text: str, title: str) -> Markup:
    """Turn matplotlib's SVG file into an element of a page, without prologue, metadata, size, style and unused ids."""
    width, height, body = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>(.*)', text, flags=re.DOTALL)[0]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if f"#{match[1]}" in text else "", body)
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup(body)


def label_rows(main: Evaluation, control: Evaluation, split: Split) -> list[LabelRow]:
    """Return the unseen labels with their average precision by two runs; the best label of `main` comes first."""
    vocabulary = main.run.vocabulary
    photos_U = (split.targets.dense(columns=vocabulary.unseen_columns) > 0).sum(axis=0)
    precisions = (_reports_of(evaluated)["ZSL"].average_precision_C for evaluated in (main, control))
    twins = set[str]().union(*map(other_forms, vocabulary.seen))
    rows = [
        LabelRow(name, int(photos), of_main, of_control, name in twins)
        for name, photos, of_main, of_control in zip(vocabulary.unseen, photos_U, *precisions, strict=True)
    ]
    return sorted(rows, key=lambda row: row.main, reverse=True)


def _photo_views(run: Run, split: Split) -> list[PhotoView]:
    """Return the views of a few photos of a split."""
    chosen = choose_photos(split, run.vocabulary)
    store = RegionStore.open(run.recipe.regions)
    rows = store.index([split.photos[n] for n in chosen])
    scored = cast(
        Iterator[Output], outputs(load_model(run), store, rows, torch.from_numpy(run.vectors_CE), batch_size=1)
    )
    present = split.targets.dense(chosen) > 0
    return [
        _photo_view(split.photos[n], out, present_C, run.vocabulary)
        for n, out, present_C in zip(chosen, scored, present, strict=True)
    ]


def choose_photos(split: Split, vocabulary: Vocabulary) -> list[int]:
    """Return the positions of the first photos with at least two unseen labels, none of which an earlier one has.

    The choice does not depend on scores: the photos are typical, not the best ones.
    """
    present_NU = split.targets.dense(columns=vocabulary.unseen_columns) > 0
    shown_U = np.zeros(len(vocabulary.unseen), dtype=bool)
    chosen: list[int] = []
    for n in np.flatnonzero(present_NU.sum(axis=1) >= 2):
        if len(chosen) < PHOTOS and not (present_NU[n] & shown_U).any():
            chosen.append(int(n))
            shown_U |= present_NU[n]
    return chosen


def _photo_view(name: str, out: Output, present_C: NDArray[np.bool_], vocabulary: Vocabulary) -> PhotoView:
    """Return the view of the single photo of `out`."""
    kinds = {"unseen": vocabulary.unseen_columns, "seen": vocabulary.seen_columns}
    return PhotoView(
        name=name,
        present={kind: [vocabulary.names[c] for c in _marked(present_C, part)] for kind, part in kinds.items()},
        best={kind: _best_tags(out, present_C, vocabulary, part) for kind, part in kinds.items()},
        maps_MR=out.attention_BMR[0].tolist(),
    )


def _marked(present_C: NDArray[np.bool_], columns: slice) -> list[int]:
    """Return the present labels among `columns`."""
    return [columns.start + int(c) for c in np.flatnonzero(present_C[columns])]


def _best_tags(out: Output, present_C: NDArray[np.bool_], vocabulary: Vocabulary, columns: slice) -> list[TagView]:
    """Return the labels with the best scores among `columns`, for the single photo of `out`."""
    scores_C, choice_C = out.scores_BC[0], out.winner_BC[0]
    best = columns.start + scores_C[columns].argsort(descending=True, stable=True)[:TOP]
    return [
        TagView(
            label=vocabulary.names[c],
            score=float(scores_C[c]),
            present=bool(present_C[c]),
            attention=int(choice_C[c]) + 1,
            map_R=out.attention_BMR[0, choice_C[c]].tolist(),
        )
        for c in best.tolist()
    ]
