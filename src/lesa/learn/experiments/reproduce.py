"""The paper's experiments from the official files: prepare, extract, train, evaluate, compare with published rows.

Each stage has a folder in the output folder and continues where it stopped:

plan.json         the settings that decide the result
dataset/          the prepared data set
regions/          its region features
run/              the training run
evaluation.json   reports under all metric rules
table.md          our metrics beside the published metrics, with their sources
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lesa.errors import LesaError
from lesa.evaluation.published import PublishedRow, comparable, published_rows
from lesa.evaluation.report import SHORT, Report
from lesa.evaluation.rules import RULES
from lesa.evaluation.tables import markdown_table
from lesa.files import write_json, write_text
from lesa.learn.datasets import nus_wide, open_images
from lesa.learn.datasets.dataset import Dataset, match_photos, write_dataset
from lesa.learn.evaluate import Evaluation, evaluate_run, write_evaluation
from lesa.learn.experiments.estimate import bytes_per_photo, free_disk, regions_done
from lesa.learn.experiments.paper import Plan, all_photos, missing_inputs, prepared_dataset, refuse_another_plan
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.extract import extract
from lesa.learn.train_bar import train_with_bar
from lesa.progress import progress_bar
from lesa.vectors import read_vectors

VERDICTS = {True: "yes", False: "no", None: "unknown"}


def reproduce(plan: Plan, announce: Callable[[str], None]) -> Path:
    """Run all stages that are not finished, write the table beside the published rows, and return its path.

    Args:
        plan: the reproduction.
        announce: called with each line for the reader.

    Raises:
        LesaError: an input is missing, the inputs do not fit together, or the disk is too small.
    """
    refuse_another_plan(plan)
    if missing := missing_inputs(plan):
        listed = "".join(f"\n  {line}" for line in missing)
        raise LesaError(f"{len(missing)} inputs are missing (see --dry-run):{listed}")
    write_json(plan.out / "plan.json", plan.settings)
    dataset = prepared_dataset(plan) or _prepare_dataset(plan)
    for line in _data_remarks(dataset):
        announce(line)
    names = all_photos(dataset)
    backbone = load_backbone(plan.backbone, weights=plan.weights)
    photos_left = len(names) - regions_done(plan.out / "regions")
    _refuse_late_errors(plan, dataset, photos_left * bytes_per_photo(backbone))
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
    run = train_with_bar(plan.recipe, plan.out / "run", device=plan.device)
    evaluated = evaluate_run(run, rules=tuple(RULES), k=plan.paper.k)
    write_evaluation(evaluated, plan.out / "evaluation.json")
    table = plan.out / "table.md"
    remarks = [*_data_remarks(dataset), f"{summary.failed:,} photos could not be read."]
    write_text(table, _table_text(plan, evaluated, remarks))
    return table


def _refuse_late_errors(plan: Plan, dataset: Dataset, disk: int) -> None:
    """Refuse, before the long work, inputs that would stop it later.

    Raises:
        LesaError: a label has no vector, K is larger than a task's labels, or the regions do not fit on the disk.
    """
    vocabulary = dataset.vocabulary
    read_vectors(plan.vectors, vocabulary.names)
    fewest = min(len(names) for names in (vocabulary.unseen, vocabulary.seen) if names)
    if max(plan.paper.k) > fewest:
        raise LesaError(f"K is {max(plan.paper.k)}, but the data set has only {fewest} seen or unseen labels")
    if disk > (free := free_disk(plan.out)):
        raise LesaError(
            f"the regions need {disk / 1e9:,.1f} GB in {plan.out}, but {free / 1e9:,.1f} GB are free: free some space"
        )


def _data_remarks(dataset: Dataset) -> list[str]:
    """Return the differences between the data and the official data, for the readers of the metrics."""
    lines = list(dataset.source.get("differences", ()))
    if missing_photos := dataset.source.get("missing_photos"):
        lines.append(f"{len(missing_photos):,} photos were not on disk and are left out, such as {missing_photos[0]}.")
    return lines


def _prepare_dataset(plan: Plan) -> Dataset:
    with progress_bar("prepare", None) as advance:
        if plan.paper.data_set == "nus-wide":
            kind = plan.experiment.removeprefix("nus-wide").removeprefix("-") or "standard"
            listed, forms = nus_wide.prepare_nus_wide(plan.root, kind), nus_wide.nus_wide_paths
        else:
            work = plan.out / "dataset" / "read"
            listed, forms = open_images.prepare_open_images(plan.root, work, advance), open_images.open_images_paths
        dataset = match_photos(listed, plan.photos, forms)
    write_dataset(dataset, plan.out / "dataset")
    return dataset


# The table


def _table_text(plan: Plan, evaluated: Evaluation, remarks: Sequence[str]) -> str:
    """Return the Markdown text: for each task the published rows, our metrics by all rules, and the sources."""
    listed = "\n".join(f"* {remark}" for remark in remarks)
    parts = [f"# {plan.experiment}, reproduced by {plan.backbone}", LEGEND, f"The data:\n\n{listed}"]
    for task, published_task in plan.paper.tasks.items():
        rows = published_rows(plan.paper.data_set, published_task)
        reports = {rules: tasks[task] for rules, tasks in evaluated.reports.items()}
        parts += [f"## {published_task}", beside_published(rows, reports, plan.paper.k), _sources(rows)]
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Percent. `positives` is the mean number of present labels per image, K * P@K / R@K: the fingerprint of a test "
    "set. A row is comparable if its fingerprint is the same as ours by the same metric rules (`lesa` if a row names "
    "no rules). It is `unknown` if the row gives no precision and recall."
)


def beside_published(rows: Sequence[PublishedRow], reports: Mapping[str, Report], k: Sequence[int]) -> str:
    """Return the Markdown table of published rows and our reports.

    Args:
        rows: the published rows.
        reports: rules -> our report.
        k: the K of precision, recall and F1.
    """
    names = [f"{metric}@{each}" for each in k for metric in SHORT] + ["mAP", "weighted mAP"]
    header = ["method", "year", *names, "positives", "images", "labels", "rules", "comparable", "source"]
    lines = []
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
    return markdown_table(header, lines)


def _format_metric(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _sources(rows: Sequence[PublishedRow]) -> str:
    """Return the numbered sources of published rows, with remarks."""
    return "\n".join(
        f"{number}. {row.method}: {row.source} ({row.status}){f'. {row.note}' if row.note else ''}"
        for number, row in enumerate(rows, start=1)
    )
