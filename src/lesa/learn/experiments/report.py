"""The report of several runs on one data set: tables, curves, per-label precision and attention maps in one HTML file.

The data are prepared here, the markup is in `templates/report.html`. The file asks for nothing from outside.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from lesa import __version__
from lesa.errors import LesaError
from lesa.evaluation.rules import Report
from lesa.files import write_text
from lesa.labels import Vocabulary, other_forms
from lesa.learn.datasets.dataset import Split, read_dataset
from lesa.learn.evaluate import Evaluation
from lesa.learn.model import Output
from lesa.learn.predict import outputs
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model, read_log, training_seconds

# One colour per run, in their order; readable on white and on near black.
COLOURS = ("#4f7be0", "#159c86", "#d9822b", "#938d9e", "#c2559d", "#7a9a2e", "#b04a3a", "#3f9fc4")
# Stands for the page's text colour, which follows the reader's light or dark scheme.
INK = "#010203"
PHOTOS = 4
TOP = 3


@dataclass(frozen=True)
class Row:
    """A line of the results table: metrics of the tasks, in percent."""

    title: str
    metrics: tuple[float, ...]
    best: tuple[bool, ...]
    """Whether a figure is the highest of all runs."""
    seconds: float | None
    """How long the training took; chance and the ceiling took none."""


@dataclass(frozen=True)
class LabelRow:
    """An unseen label, in how many photos it is, and its average precision by the two compared runs, in percent."""

    name: str
    photos: int
    main: float
    control: float
    twin: bool
    """Whether its singular or plural is a seen label: then it is hardly unseen."""


@dataclass(frozen=True)
class TagView:
    """A label that a photo was given, and the attention that it chose."""

    label: str
    score: float
    present: bool
    attention: int
    """The number of the attention, from 1."""
    map_R: list[float]


@dataclass(frozen=True)
class PhotoView:
    """A photo: the labels that it carries, the best ones that it was given, and where each attention looks."""

    name: str
    carried: dict[str, list[str]]
    """Under `unseen` and `seen`."""
    given: dict[str, list[TagView]]
    """Under `unseen` and `seen`."""
    maps_MR: list[list[float]]


def write_report(
    evaluations: Mapping[str, Evaluation],
    path: Path,
    *,
    main: str,
    control: str,
    tagged: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the HTML report of runs that were judged on the same split of one data set under one set of rules.

    Args:
        evaluations: title to evaluation, in the order of the tables.
        path: the HTML file.
        main: title of the run whose attention maps are drawn.
        control: title of the run that `main` is compared with, label by label.
        tagged: pictures (data URIs) of photos that the bundle in the package tagged, by name.

    Raises:
        LesaError: the evaluations are of different data sets, splits or rules.
    """
    _refuse_mixed(evaluations)
    evaluated = evaluations[main]
    data = read_dataset(evaluated.run.recipe.dataset)
    split = data.split(evaluated.split)
    page = template().render(
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
        bounds=[chance(evaluated), ceiling(evaluated, split)],
        panels=_curves(evaluations, len(data.split("train").photos)),
        main=main,
        control=control,
        labels=label_rows(evaluated, evaluations[control], split),
        photos=_photo_views(evaluated.run, split),
        tagged=tagged,
    )
    write_text(path, page)


def template() -> Any:
    """Return the report's template; every value is escaped and a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("lesa.learn.experiments", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _refuse_mixed(evaluations: Mapping[str, Evaluation]) -> None:
    """Refuse evaluations whose metrics cannot stand in one table."""
    kinds = {(e.run.regions["data_set"], e.run.vocabulary, e.split, tuple(e.reports)) for e in evaluations.values()}
    if len(kinds) != 1:
        raise LesaError(
            f"a report needs runs of one data set, judged on one split under one set of rules; "
            f"{', '.join(evaluations)} are not: evaluate them alike, or write a report for each"
        )


def _describe(run: Run) -> str:
    """Return what tells a run from others, in a line."""
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
    """Return the name of the rules whose metrics are reported: the first ones."""
    return next(iter(evaluated.reports))


def _reports_of(evaluated: Evaluation) -> dict[str, Report]:
    """Return the reported tasks of an evaluation."""
    return evaluated.reports[_rules_of(evaluated)]


def metrics(evaluated: Evaluation) -> tuple[float, ...]:
    """Return the metrics of a line of the table: for each task F1 at each K, then mAP, in percent."""
    return tuple(value for r in _reports_of(evaluated).values() for value in (*r.f1.values(), r.mean_average_precision))


def _result_rows(evaluations: Mapping[str, Evaluation]) -> list[Row]:
    """Return a line of the table for each run."""
    table = {title: metrics(evaluated) for title, evaluated in evaluations.items()}
    highest = [max(column) for column in zip(*table.values(), strict=True)]
    return [
        Row(
            title=title,
            metrics=line,
            best=tuple(value == top for value, top in zip(line, highest, strict=True)),
            seconds=training_seconds(read_log(evaluations[title].run)),
        )
        for title, line in table.items()
    ]


def chance(evaluated: Evaluation) -> Row:
    """Return what random scores get: with p of C labels present a photo, P@K = p / C, R@K = K / C and AP = p / C."""
    line: list[float] = []
    for report in _reports_of(evaluated).values():
        p, C = report.positives_per_image, report.labels
        line += [100 * 2 * p * k / (C * (p + k)) for k in report.f1]
        line.append(100 * p / C)
    return Row("chance", tuple(line), (False,) * len(line), None)


def ceiling(evaluated: Evaluation, split: Split) -> Row:
    """Return what perfect scores get: F1@K stays low where photos carry fewer than K labels."""
    line: list[float] = []
    vocabulary = evaluated.run.vocabulary
    for task, report in _reports_of(evaluated).items():
        present_NC = split.targets.dense(columns=_columns_of(task, vocabulary)) > 0
        found = {k: np.minimum(present_NC.sum(axis=1), k).sum() for k in report.f1}
        line += [float(200 * found[k] / (k * len(present_NC) + present_NC.sum())) for k in found]
        line.append(float(100 * present_NC.any(axis=0).mean()))
    return Row("perfect scores", tuple(line), (False,) * len(line), None)


def _columns_of(task: str, vocabulary: Vocabulary) -> slice:
    """Return the labels that a task judges."""
    return {"ZSL": vocabulary.unseen_columns, "seen": vocabulary.seen_columns}.get(task, slice(None))


def _curves(evaluations: Mapping[str, Evaluation], photos: int) -> dict[str, Markup]:
    """Return a chart for each validation figure and each loss of LESA, by title; every run keeps its colour.

    A closed form has no curve.

    Args:
        evaluations: title to evaluation.
        photos: the number of training photos, which turns steps into epochs.
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
    """Yield step, mean loss since the validation before, and figure of each validation."""
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
    """Draw lines, by colour, as SVG whose text and axes take the page's own colour."""
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
    """Turn matplotlib's SVG file into an element of a page: no prologue, metadata, size, style rules or idle ids."""
    width, height, body = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>(.*)', text, flags=re.DOTALL)[0]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if f"#{match[1]}" in text else "", body)
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup(body)


def label_rows(main: Evaluation, control: Evaluation, split: Split) -> list[LabelRow]:
    """Return the unseen labels with their average precision by two runs, the best of `main` first."""
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
    """Return what a run sees in a few photos of a split."""
    chosen = choose_photos(split, run.vocabulary)
    store = RegionStore.open(run.recipe.regions)
    rows = store.index([split.photos[n] for n in chosen])
    seen_by = cast(
        Iterator[Output], outputs(load_model(run), store, rows, torch.from_numpy(run.vectors_CE), batch_size=1)
    )
    present = split.targets.dense(chosen) > 0
    return [
        _photo_view(split.photos[n], out, present_C, run.vocabulary)
        for n, out, present_C in zip(chosen, seen_by, present, strict=True)
    ]


def choose_photos(split: Split, vocabulary: Vocabulary) -> list[int]:
    """Return the first photos, by position, that carry two unseen labels or more, all of them new ones.

    The choice looks at no score: the photos show what the model does, not what it does best.
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
    """Return what the model says of the one photo of `out`."""
    kinds = {"unseen": vocabulary.unseen_columns, "seen": vocabulary.seen_columns}
    return PhotoView(
        name=name,
        carried={kind: [vocabulary.names[c] for c in _marked(present_C, part)] for kind, part in kinds.items()},
        given={kind: _best_tags(out, present_C, vocabulary, part) for kind, part in kinds.items()},
        maps_MR=out.attention_BMR[0].tolist(),
    )


def _marked(present_C: NDArray[np.bool_], columns: slice) -> list[int]:
    """Return the present labels among `columns`."""
    return [columns.start + int(c) for c in np.flatnonzero(present_C[columns])]


def _best_tags(out: Output, present_C: NDArray[np.bool_], vocabulary: Vocabulary, columns: slice) -> list[TagView]:
    """Return the best-scored labels among `columns` of the one photo of `out`."""
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
