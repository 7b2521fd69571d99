"""Metrics that others published on NUS-WIDE and Open Images, with their sources, and which of them ours stand beside.

`published.json` holds them: a legend and one list of rows. Papers judge on different test sets under the same name, and
micro precision and recall betray which: K * P@K / R@K is the mean number of present labels per image.
"""

import json
from dataclasses import dataclass
from importlib.resources import files

from lesa.errors import LesaError, did_you_mean

DATA_SETS = ("nus-wide", "open-images")
TASKS = ("ZSL", "GZSL", "multi-label")

# A copy of a test set that lacks some of its images moves the fingerprint by less; another test set by far more.
TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method's metrics for one task of one data set."""

    method: str
    """Name in the source; what distinguishes several rows of one method follows in brackets."""
    year: int
    """Year in which these metrics were published, also of a baseline that a later paper ran again."""
    data_set: str
    """One of `DATA_SETS`."""
    task: str
    """One of `TASKS`; "multi-label" is training and testing on the same labels."""
    metrics: dict[str, float]
    """Percent, by name: `P@K`, `R@K`, `F1@K`, `mAP` and `weighted mAP` (each label by its number of positives)."""
    decimals: int
    """Decimals of `metrics`: half a unit of the last is what rounding hides."""
    averaging: str | None
    """How P, R and F1 join the labels, "micro" or "macro"; None where there are none or the source does not say."""
    rules: str | None
    """Name of the metric rules (`lesa`, `biam_oi`, `miil`), None where unknown; `note` says in what they differ."""
    positives_per_image: float | None
    """Fingerprint of the test set, one value for all rows of a table; None where the row does not show it."""
    backbone: str | None
    """Image features, where stated."""
    label_vectors: str | None
    """What stands for a label, where stated."""
    status: str
    """"verified" (read in the source), "derived" (arithmetic on such metrics) or "secondary" (an aggregator's)."""
    source: str
    """Where the metrics stand; repositories as `owner/name@commit:path`."""
    note: str | None
    """What to know before comparing; None where nothing."""


def published_rows(data_set: str, task: str) -> list[PublishedRow]:
    """Return what was published for a task, oldest first.

    Args:
        data_set: one of `DATA_SETS`.
        task: one of `TASKS`.

    Raises:
        LesaError: there is no such data set or task.

    Example:
        >>> [row.metrics["mAP"] for row in published_rows("nus-wide", "ZSL") if row.method == "LESA (M=10)"]
        [19.4]
    """
    if data_set not in DATA_SETS:
        raise LesaError(f"nothing is published here for {data_set!r}; {did_you_mean(data_set, DATA_SETS)}")
    if task not in TASKS:
        raise LesaError(f"there is no task {task!r}; {did_you_mean(task, TASKS)}")
    return [row for row in all_rows() if (row.data_set, row.task) == (data_set, task)]


def comparable(row: PublishedRow, positives_per_image: float, tolerance: float = TOLERANCE) -> bool | None:
    """Tell whether a published row was judged on a test set like ours.

    The row's rounding bounds its fingerprint; ours must lie within the bounds, widened by `tolerance`. Agreement says
    nothing about the rules of average precision: compare `row.rules` as well.

    Args:
        row: a published row.
        positives_per_image: mean present labels per image of our test set (`Report.positives_per_image`).
        tolerance: relative difference that is no other test set.

    Returns:
        True where the fingerprints agree; False where they differ, or the row's metrics are macro averages (ours are
        micro); None where nobody can tell: the row prints no P and R, or contradicts itself.
    """
    if row.averaging == "macro":
        return False
    bounds = fingerprint_bounds(row)
    if not bounds:
        return None
    low = max(low for low, _ in bounds) * (1 - tolerance)
    high = min(high for _, high in bounds) * (1 + tolerance)
    return low <= positives_per_image <= high if low <= high else None


def fingerprint_bounds(row: PublishedRow) -> list[tuple[float, float]]:
    """Return the least and the greatest K * P@K / R@K that round to what the row prints, for every K it prints."""
    half = 0.5 * 10**-row.decimals
    at_k = [int(name[2:]) for name in row.metrics if name.startswith("P@")]
    pairs = [(k, row.metrics[f"P@{k}"], row.metrics[f"R@{k}"]) for k in at_k if f"R@{k}" in row.metrics]
    return [(k * (p - half) / (r + half), k * (p + half) / (r - half)) for k, p, r in pairs]


def all_rows() -> list[PublishedRow]:
    """Return every published row, in the order of the file."""
    text = (files("lesa.evaluation") / "published.json").read_text(encoding="utf-8")
    return [PublishedRow(**row) for row in json.loads(text)["rows"]]
