"""The paper's experiments from the official files: prepare, extract, train, evaluate, the table beside published rows.

Every stage has a folder below the output folder and goes on where it stopped:

plan.json         what decides the result
dataset/          the prepared data set
regions/          its region features
run/              the training run
evaluation.json   reports under all metric rules
table.md          our metrics beside the published ones, with their sources
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lesa.errors import LesaError
from lesa.evaluation.published import PublishedRow, comparable, published_rows
from lesa.evaluation.rules import RULES, Report
from lesa.files import write_json, write_text
from lesa.learn.datasets import nus_wide, open_images
from lesa.learn.datasets.dataset import Dataset, write_dataset
from lesa.learn.evaluate import Evaluation, evaluate_run, write_evaluation
from lesa.learn.experiments.estimate import bytes_a_photo, free_disk, regions_done
from lesa.learn.experiments.paper import Plan, all_photos, missing, prepared, refuse_another_plan
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.extract import extract
from lesa.learn.train import Progress, train
from lesa.progress import progress_bar
from lesa.vectors import read_vectors

VERDICTS = {True: "yes", False: "no", None: "unknown"}


def reproduce(plan: Plan, announce: Callable[[str], None]) -> Path:
    """Run every stage that is left, write the table beside the published rows, and return its path.

    Raises:
        LesaError: something is missing or does not fit together, or the disk is too small.
    """
    refuse_another_plan(plan)
    if lacking := missing(plan):
        raise LesaError(f"{len(lacking)} things are missing (see --dry-run):" + "".join(f"\n  {x}" for x in lacking))
    write_json(plan.out / "plan.json", plan.settings)
    dataset = prepared(plan) or _prepare_dataset(plan)
    for line in _about_data(dataset):
        announce(line)
    names = all_photos(dataset)
    backbone = load_backbone(plan.backbone, weights=plan.weights)
    _refuse_late_trouble(plan, dataset, (len(names) - regions_done(plan.out / "regions")) * bytes_a_photo(backbone))
    with progress_bar("extract", len(names)) as advance:
        summary = extract(
            plan.photos,
            names,
            plan.out / "regions",
            backbone,
            device=plan.device,
            progress=lambda done, *_: advance(done),
        )
    announce(f"regions of {summary.done:,} photos, {summary.failed:,} failed")
    with progress_bar("train", None) as advance:

        def report(now: Progress) -> None:
            advance(now.step, now.steps, f"loss {now.terms['total']:.3g}")

        run = train(plan.recipe, plan.out / "run", device=plan.device, progress=report)
    evaluated = evaluate_run(run, rules=tuple(RULES), k=plan.what.k)
    write_evaluation(evaluated, plan.out / "evaluation.json")
    table = plan.out / "table.md"
    write_text(
        table, _table_text(plan, evaluated, [*_about_data(dataset), f"{summary.failed:,} photos could not be read."])
    )
    return table


def _refuse_late_trouble(plan: Plan, dataset: Dataset, disk: int) -> None:
    """Refuse, before the long work, what would stop it in the end.

    Raises:
        LesaError: a label has no vector, K is larger than a task's labels, or the regions do not fit on the disk.
    """
    vocabulary = dataset.vocabulary
    read_vectors(plan.vectors, vocabulary.names)
    fewest = min(len(names) for names in (vocabulary.unseen, vocabulary.seen) if names)
    if max(plan.what.k) > fewest:
        raise LesaError(f"K is {max(plan.what.k)}, but the data set has {fewest} seen or unseen labels only")
    if disk > (free := free_disk(plan.out)):
        raise LesaError(f"the regions need {disk / 1e9:,.1f} GB in {plan.out}, {free / 1e9:,.1f} GB are free")


def _about_data(dataset: Dataset) -> list[str]:
    """Return what a reader of the metrics must know of the data: how they differ from the official ones."""
    lines = list(dataset.source.get("differences", ()))
    if missing_photos := dataset.source.get("missing_photos"):
        lines.append(f"{len(missing_photos):,} photos were not on disk and are left out, such as {missing_photos[0]}.")
    return lines


def _prepare_dataset(plan: Plan) -> Dataset:
    """Make and write the data set."""
    with progress_bar("prepare", None) as advance:
        if plan.what.data_set == "nus-wide":
            kind = plan.experiment.removeprefix("nus-wide").removeprefix("-") or "standard"
            dataset = nus_wide.prepare_nus_wide(plan.root, kind, plan.photos)
        else:
            dataset = open_images.prepare_open_images(
                plan.root, plan.out / "dataset" / "read", plan.photos, progress=advance
            )
    write_dataset(dataset, plan.out / "dataset")
    return dataset


# The table


def _table_text(plan: Plan, evaluated: Evaluation, remarks: Sequence[str]) -> str:
    """Return the Markdown table of each task: published rows, then ours under every rules, then the sources."""
    about = "\n".join(f"* {remark}" for remark in remarks)
    parts = [f"# {plan.experiment}, reproduced by {plan.backbone}", LEGEND, f"The data:\n\n{about}"]
    for task, published_task in plan.what.tasks.items():
        rows = published_rows(plan.what.data_set, published_task)
        reports = {rules: tasks[task] for rules, tasks in evaluated.reports.items()}
        parts += [f"## {published_task}", beside_published(rows, reports, plan.what.k), sources(rows)]
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Percent. `positives` is the mean number of present labels per image, K * P@K / R@K: a test set's fingerprint. "
    "A row is comparable if its fingerprint is that of ours under the same metric rules (`lesa` where a row does not "
    "say its rules); `unknown` if it prints no precision and recall to tell by."
)


def beside_published(rows: Sequence[PublishedRow], reports: Mapping[str, Report], k: Sequence[int]) -> str:
    """Return the Markdown table of published rows and our reports by rules."""
    names = [f"{metric}@{each}" for each in k for metric in ("P", "R", "F1")] + ["mAP", "weighted mAP"]
    lines = [["method", "year", *names, "positives", "images", "labels", "rules", "comparable", "source"]]
    lines.append(["---"] * len(lines[0]))
    for number, row in enumerate(rows, start=1):
        ours = reports[row.rules or "lesa"]
        verdict = VERDICTS[comparable(row, ours.positives_per_image)]
        cells = [_format_metric(row.metrics.get(name), row.decimals) for name in names]
        positives = _format_metric(row.positives_per_image, 2)
        lines.append([row.method, str(row.year), *cells, positives, "-", "-", row.rules or "-", verdict, f"[{number}]"])
    for rules, report in reports.items():
        cells = [_format_metric(report.metrics().get(name), 2) for name in names]
        test_set = [f"{report.positives_per_image:.2f}", f"{report.images:,}", f"{report.labels:,}"]
        lines.append(["**ours**", "-", *cells, *test_set, rules, "-", "this run"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _format_metric(value: float | None, decimals: int) -> str:
    """Return a metric as a table shows it."""
    return "-" if value is None else f"{value:.{decimals}f}"


def sources(rows: Sequence[PublishedRow]) -> str:
    """Return the numbered sources of published rows, with what to know about each."""
    return "\n".join(
        f"{number}. {row.method}: {row.source} ({row.status}){f'. {row.note}' if row.note else ''}"
        for number, row in enumerate(rows, start=1)
    )
