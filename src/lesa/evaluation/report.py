"""Scores and targets -> a Report: the metrics that named rules give, in percent.

A Report names its rules and contains the fingerprint of its test set (images, labels, mean number of present labels per
image), because results under different rules or on different images cannot be compared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesa.errors import LesaError
from lesa.evaluation.metrics import (
    LabelScores,
    average_precision_C,
    each_label,
    hits_at_k,
    precision_recall_f1,
    present_per_image,
    row_blocks,
)
from lesa.evaluation.rules import Rules, find_rules
from lesa.labels import Vocabulary

AT_K = ("precision", "recall", "f1")
"""The fields of a Report that are mappings from K."""
SHORT = ("P", "R", "F1")
"""Their names in tables."""


@dataclass(frozen=True)
class Report:
    """The metrics of one task under one set of rules, in percent, with the fingerprint of the test set."""

    rules: str
    """Name of the rules."""
    images: int
    """Number of evaluated images, without those that the rules leave out."""
    labels: int
    """Number of labels in the means, without those that the rules leave out."""
    positives_per_image: float
    """Mean number of present labels per image. It equals K * P@K / R@K of any table of micro averages."""
    precision: Mapping[int, float]
    """Precision by K. Like `recall` and `f1`, it is empty if the rules do not define it."""
    recall: Mapping[int, float]
    """Recall by K."""
    f1: Mapping[int, float]
    """Harmonic mean of precision and recall by K."""
    mean_average_precision: float
    """Mean of the labels' average precisions."""
    weighted_mean_average_precision: float
    """The same mean, each label weighted by its number of present images."""
    average_precision_C: tuple[float | None, ...]
    """Average precision of each label, in the order of the columns. None for a label that the rules leave out."""

    def metrics(self) -> dict[str, float]:
        """Return all metrics except those of single labels, by their names in tables: `P@3`, ..., `mAP`."""
        at_k = {
            f"{short}@{k}": getattr(self, name)[k] for k in self.f1 for short, name in zip(SHORT, AT_K, strict=True)
        }
        means = {"mAP": self.mean_average_precision, "weighted mAP": self.weighted_mean_average_precision}
        return at_k | means

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; K becomes text."""
        at_k = {name: {str(k): value for k, value in getattr(self, name).items()} for name in AT_K}
        return {**asdict(self), **at_k, "average_precision_C": list(self.average_precision_C)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Report":
        """Rebuild a Report from the result of `to_dict`.

        Raises:
            LesaError: keys are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if odd := names.symmetric_difference(values):
            raise LesaError(f"this is not a report of this version: {', '.join(sorted(odd))} missing or unknown")
        at_k = {name: {int(k): value for k, value in values[name].items()} for name in AT_K}
        return cls(**{**values, **at_k, "average_precision_C": tuple(values["average_precision_C"])})


@dataclass(frozen=True)
class RuledScores:
    """Scores and targets, with the images, labels and K that one set of rules evaluates."""

    rules: Rules
    scores_NC: NDArray[Any]
    targets_NC: NDArray[Any]
    """+1 present, -1 absent, 0 not annotated."""
    present_N: NDArray[np.int64]
    """Number of present labels of each image."""
    images_N: NDArray[np.bool_]
    """The images that are evaluated."""
    labels_C: NDArray[np.bool_]
    """The labels that the mean of average precision includes."""
    k: tuple[int, ...]
    """The K of precision, recall and F1; empty if the rules do not define them."""

    def each_label(self) -> Iterator[LabelScores]:
        """Yield what average precision needs, label by label."""
        return each_label(self.scores_NC, self.targets_NC, self.rules.masked, self.rules.ties, self.images_N)


def apply_rules(scores_NC: ArrayLike, targets_NC: ArrayLike, rules: str, k: Sequence[int]) -> RuledScores:
    """Check scores and targets, and apply named rules to them; the arguments and errors are those of `evaluate`."""
    rule = find_rules(rules)
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    if targets_NC.dtype == bool:
        targets_NC = np.where(targets_NC, np.int8(1), np.int8(-1))
    _check(scores_NC, targets_NC)
    check_k(k, rules, scores_NC.shape[1])
    present_N = present_per_image(targets_NC)
    images_N = present_N > 0 if rule.labelled_images_only else np.ones(len(present_N), dtype=bool)
    return RuledScores(
        rules=rule,
        scores_NC=scores_NC,
        targets_NC=targets_NC,
        present_N=present_N,
        images_N=images_N,
        labels_C=_evaluated_labels(targets_NC, images_N, rule),
        k=tuple(k) if rule.at_k else (),
    )


def _evaluated_labels(targets_NC: NDArray[Any], images_N: NDArray[np.bool_], rule: Rules) -> NDArray[np.bool_]:
    if not rule.annotated_labels_only:
        return np.ones(targets_NC.shape[1], dtype=bool)
    annotated_C = np.zeros(targets_NC.shape[1], dtype=bool)
    for rows in row_blocks(len(targets_NC)):
        annotated_C |= (targets_NC[rows][images_N[rows]] != 0).any(axis=0)
    return annotated_C


def evaluate(scores_NC: ArrayLike, targets_NC: ArrayLike, rules: str = "lesa", k: Sequence[int] = (3, 5)) -> Report:
    """Evaluate scores against targets by named rules.

    Args:
        scores_NC: any finite numbers, higher is better, `N, C`. Only their order matters.
        targets_NC: +1 present, -1 absent, 0 not annotated, `N, C`; or true present, false absent.
        rules: a name in `RULES`.
        k: the K of precision, recall and F1.

    Raises:
        LesaError: the rules are unknown, the shapes differ, there is no image or no label, a score is not finite, a
            target is not +1, -1 or 0, or a K is not between 1 and C.
    """
    ruled = apply_rules(scores_NC, targets_NC, rules, k)
    images, present = int(ruled.images_N.sum()), int(ruled.present_N.sum())
    at_k = {
        each: 100 * precision_recall_f1(hits_at_k(ruled.scores_NC, ruled.targets_NC, each).sum(), present, images, each)
        for each in ruled.k
    }
    precision_C = 100 * average_precision_C(ruled.each_label())
    present_C = np.count_nonzero(ruled.targets_NC > 0, axis=0)
    return Report(
        rules=rules,
        images=images,
        labels=int(ruled.labels_C.sum()),
        positives_per_image=present / max(images, 1),
        precision={k: float(values[0]) for k, values in at_k.items()},
        recall={k: float(values[1]) for k, values in at_k.items()},
        f1={k: float(values[2]) for k, values in at_k.items()},
        mean_average_precision=float(precision_C[ruled.labels_C].mean()) if ruled.labels_C.any() else 0.0,
        weighted_mean_average_precision=float(precision_C @ present_C / max(present, 1)),
        average_precision_C=tuple(
            value if counted else None for value, counted in zip(precision_C.tolist(), ruled.labels_C, strict=True)
        ),
    )


def task_columns(unseen: int, labels: int) -> dict[str, slice]:
    """Return the columns of each task of a score matrix whose first columns are the unseen labels.

    "ZSL" has the unseen labels, "GZSL" all labels, "seen" the seen labels. A task without labels is left out.

    Args:
        unseen: number of unseen labels.
        labels: number of all labels.
    """
    tasks = {"ZSL": slice(0, unseen), "GZSL": slice(0, labels), "seen": slice(unseen, labels)}
    return {task: columns for task, columns in tasks.items() if columns.stop > columns.start}


def by_task(
    scores_NC: ArrayLike,
    targets_NC: ArrayLike,
    vocabulary: Vocabulary,
    rules: str = "lesa",
    k: Sequence[int] = (3, 5),
) -> dict[str, Report]:
    """Evaluate one score matrix on the labels of each task (`task_columns`).

    Args:
        scores_NC: scores for the whole vocabulary, unseen columns first, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        vocabulary: the unseen and the seen labels of the columns.
        rules: a name in `RULES`.
        k: the K of precision, recall and F1.

    Raises:
        LesaError: as `evaluate`, or the number of columns is not the number of labels in the vocabulary.
    """
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    labels = len(vocabulary.names)
    if scores_NC.shape[1:] != (labels,):
        raise LesaError(f"scores have shape {scores_NC.shape}, expected one column for each of the {labels} labels")
    return {
        task: evaluate(scores_NC[:, columns], targets_NC[:, columns], rules, k)
        for task, columns in task_columns(len(vocabulary.unseen), labels).items()
    }


def check_k(k: Sequence[int], rules: str, labels: int) -> None:
    """Refuse a K that is not a number of labels, where the rules use K."""
    for each in k if find_rules(rules).at_k else ():
        if each not in range(1, labels + 1):
            raise LesaError(f"K is {each}, but there are {labels} labels to choose from: give a K from 1 to {labels}")


def _check(scores_NC: NDArray[Any], targets_NC: NDArray[Any]) -> None:
    """Refuse matrices for which no metric is defined."""
    if {scores_NC.dtype.kind, targets_NC.dtype.kind} - set("fiub"):
        raise LesaError(f"scores are {scores_NC.dtype} and targets {targets_NC.dtype}, expected plain numbers")
    if scores_NC.shape != targets_NC.shape or scores_NC.ndim != 2:
        raise LesaError(
            f"scores have shape {scores_NC.shape} and targets {targets_NC.shape}, expected both images x labels"
        )
    if 0 in scores_NC.shape:
        raise LesaError(f"{scores_NC.shape[0]} images x {scores_NC.shape[1]} labels leave nothing to evaluate")
    if place := _first_where(scores_NC, lambda block: ~np.isfinite(block)):
        raise LesaError(
            f"the score at row {place[0]}, column {place[1]} is {scores_NC[place]}, expected finite numbers: "
            "look for NaN in that photo's regions, that label's vector or the model's weights"
        )
    refuse_targets(targets_NC)


def refuse_targets(targets_NC: NDArray[Any]) -> None:
    """Refuse targets that are not present (+1), absent (-1) or not annotated (0)."""
    if place := _first_where(targets_NC, lambda block: ~np.isin(block, (-1, 0, 1))):
        raise LesaError(
            f"the target at row {place[0]}, column {place[1]} is {targets_NC[place]}, "
            "expected 1 (present), -1 (absent) or 0 (not annotated)"
        )


def _first_where(matrix_NC: NDArray[Any], wrong: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> tuple[int, int] | None:
    """Return row and column of the first entry that is `wrong`; None if there is no such entry."""
    for rows in row_blocks(len(matrix_NC)):
        if (marks := wrong(matrix_NC[rows])).any():
            row, column = np.argwhere(marks)[0]
            return rows.start + int(row), int(column)
    return None
