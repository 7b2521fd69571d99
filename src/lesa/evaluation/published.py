"""Metrics that others published on NUS-WIDE and Open Images, with their sources; which of them ours are comparable to.

`published.json` contains a legend and one list of rows. Papers use different test sets under the same name. Micro
precision and recall show which test set was used: K * P@K / R@K is the mean number of present labels per image.
"""

import json
from dataclasses import dataclass
from importlib.resources import files

from lesa.errors import LesaError, did_you_mean

DATA_SETS = ("nus-wide", "open-images")
TASKS = ("ZSL", "GZSL", "multi-label")

# If some images of a test set are missing, its fingerprint changes by less than this share. Other test sets differ by
# far more.
TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method's metrics for one task of one data set."""

    method: str
    """Name in the source. If there are several rows of one method, brackets say how they differ."""
    year: int
    """Year in which these metrics were published. For a baseline in a later paper it is the year of that paper."""
    data_set: str
    """One of `DATA_SETS`."""
    task: str
    """One of `TASKS`; "multi-label" means that training and test labels are the same."""
    metrics: dict[str, float]
    """Percent, by name: `P@K`, `R@K`, `F1@K`, `mAP` and `weighted mAP` (each label by its number of positives)."""
    decimals: int
    """Number of decimals of `metrics`: rounding changes a metric by at most half a unit of the last one."""
    averaging: str | None
    """How P, R and F1 combine the labels, "micro" or "macro"; None if they are not given or the source does not say."""
    rules: str | None
    """Name of the metric rules (`lesa`, `biam_oi`, `miil`), None if unknown; `note` says how they differ."""
    positives_per_image: float | None
    """Fingerprint of the test set, one value for all rows of a table; None if the row does not show it."""
    backbone: str | None
    """The image features; None if not stated."""
    label_vectors: str | None
    """The label vectors; None if not stated."""
    status: str
    """"verified" (read in the source), "derived" (computed from such metrics) or "secondary" (from a collection)."""
    source: str
    """Where the metrics were published; repositories as `owner/name@commit:path`."""
    note: str | None
    """A remark that matters for comparisons, if there is one."""


def published_rows(data_set: str, task: str) -> list[PublishedRow]:
    """Return the rows that were published for a task, oldest first.

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
        raise LesaError(f"there are no published rows for {data_set!r}; {did_you_mean(data_set, DATA_SETS)}")
    if task not in TASKS:
        raise LesaError(f"there is no task {task!r}; {did_you_mean(task, TASKS)}")
    return [row for row in all_rows() if (row.data_set, row.task) == (data_set, task)]


def comparable(row: PublishedRow, positives_per_image: float, tolerance: float = TOLERANCE) -> bool | None:
    """Tell whether a published row was evaluated on a test set like ours.

    The row's metrics are rounded, so its fingerprint is known within bounds. Our fingerprint must be within these
    bounds, widened by `tolerance`. Agreement says nothing about the rules of average precision: compare `row.rules`.

    Args:
        row: a published row.
        positives_per_image: mean number of present labels per image of our test set (`Report.positives_per_image`).
        tolerance: a relative difference up to this one is allowed.

    Returns:
        True if the fingerprints agree. False if they differ, or if the row's metrics are macro averages (ours are
        micro averages). None if it is unknown: the row gives no P and R, or contradicts itself.
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
    """Return, for every K in the row, the least and the greatest K * P@K / R@K that agree with its rounded P and R."""
    half = 0.5 * 10**-row.decimals
    at_k = [int(name[2:]) for name in row.metrics if name.startswith("P@")]
    pairs = [(k, row.metrics[f"P@{k}"], row.metrics[f"R@{k}"]) for k in at_k if f"R@{k}" in row.metrics]
    return [(k * (p - half) / (r + half), k * (p + half) / (r - half)) for k, p, r in pairs]


def all_rows() -> list[PublishedRow]:
    """Return every published row, in the order of the file."""
    text = (files("lesa.evaluation") / "published.json").read_text(encoding="utf-8")
    return [PublishedRow(**row) for row in json.loads(text)["rows"]]
