"""Named metric rules and what they make of scores and targets: a Report, in percent.

Papers compute these figures by different rules, which moves them by tens of points; a Report therefore names its
rules and carries the fingerprint of its test set (images, labels, mean present labels an image).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesa.errors import LesaError, did_you_mean
from lesa.labels import Vocabulary
from lesa.metrics import average_precision_C, precision_recall_f1_at_k, row_blocks


@dataclass(frozen=True)
class Rules:
    """What a paper or a library does where others do something else."""

    masked: bool
    """Whether average precision leaves out images that are not annotated for a label (0), or counts them absent."""
    at_k: bool
    """Whether the rules define precision, recall and F1 at K."""


RULES = {
    "lesa": Rules(masked=True, at_k=True),
    "sklearn": Rules(masked=False, at_k=False),
}
"""The rules by name.

`lesa` is what the authors' program does (its `core/utils.py`): micro P, R and F1 at K over all images, with labels
that are not annotated as absent; average precision over the annotated images, tied scores together, 0 for a label
without positives, mean over all labels. `sklearn` is scikit-learn's macro `average_precision_score`.
"""

AT_K = ("precision", "recall", "f1")
"""The fields of a Report that are mappings from K."""


@dataclass(frozen=True)
class Report:
    """The figures of one task under one set of rules, in percent, with the fingerprint of the test set."""

    rules: str
    """Name of the rules."""
    images: int
    """Number of images judged."""
    labels: int
    """Number of labels judged."""
    positives_per_image: float
    """Mean number of present labels an image: K * P@K / R@K of any micro table shows it too."""
    precision: Mapping[int, float]
    """Precision by K; empty where the rules do not define it, as `recall` and `f1`."""
    recall: Mapping[int, float]
    """Recall by K."""
    f1: Mapping[int, float]
    """Harmonic mean of precision and recall by K."""
    mean_average_precision: float
    """Mean of the labels' average precisions."""
    weighted_mean_average_precision: float
    """The same mean, each label weighted by its number of present images."""
    average_precision_C: tuple[float, ...]
    """Average precision of each label, in the order of the columns."""

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON file can hold: K becomes text."""
        at_k = {name: {str(k): value for k, value in getattr(self, name).items()} for name in AT_K}
        return {**asdict(self), **at_k, "average_precision_C": list(self.average_precision_C)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Report":
        """Rebuild a Report from what `to_dict` returned.

        Raises:
            LesaError: keys are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if odd := names.symmetric_difference(values):
            raise LesaError(f"this is no report of this version: {', '.join(sorted(odd))} missing or unknown")
        at_k = {name: {int(k): value for k, value in values[name].items()} for name in AT_K}
        return cls(**{**values, **at_k, "average_precision_C": tuple(values["average_precision_C"])})


def evaluate(scores_NC: ArrayLike, targets_NC: ArrayLike, rules: str = "lesa", k: Sequence[int] = (3, 5)) -> Report:
    """Judge scores against targets by named rules.

    Args:
        scores_NC: any finite numbers, higher is better, `N, C`; only their order counts.
        targets_NC: +1 present, -1 absent, 0 not annotated, `N, C`.
        rules: a name in `RULES`.
        k: the K of precision, recall and F1.

    Raises:
        LesaError: unknown rules, shapes that differ, no image or no label, a score that is not finite, a target that
            is none of +1, -1 and 0, or a K that is not among 1 to C.
    """
    if rules not in RULES:
        raise LesaError(f"there are no metric rules {rules!r}; {did_you_mean(rules, RULES)}")
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    check(scores_NC, targets_NC)
    images, labels = scores_NC.shape
    at_k = at_each_k(scores_NC, targets_NC, k) if RULES[rules].at_k else {}
    precision_C = 100 * average_precision_C(scores_NC, targets_NC, RULES[rules].masked)
    present_C = np.count_nonzero(targets_NC > 0, axis=0)
    return Report(
        rules=rules,
        images=images,
        labels=labels,
        positives_per_image=float(present_C.sum() / images),
        precision={k: 100 * values[0] for k, values in at_k.items()},
        recall={k: 100 * values[1] for k, values in at_k.items()},
        f1={k: 100 * values[2] for k, values in at_k.items()},
        mean_average_precision=float(precision_C.mean()),
        weighted_mean_average_precision=float(precision_C @ present_C / max(present_C.sum(), 1)),
        average_precision_C=tuple(precision_C.tolist()),
    )


def by_task(
    scores_NC: ArrayLike,
    targets_NC: ArrayLike,
    vocabulary: Vocabulary,
    rules: str = "lesa",
    k: Sequence[int] = (3, 5),
) -> dict[str, Report]:
    """Judge one score matrix three times: "ZSL" on the unseen labels, "GZSL" on all, "seen" on the seen ones.

    A task without labels (a vocabulary that has no unseen ones, say) is left out.

    Args:
        scores_NC: scores for the whole vocabulary, unseen columns first, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        vocabulary: says which columns are unseen and which seen.
        rules: a name in `RULES`.
        k: the K of precision, recall and F1.

    Raises:
        LesaError: as `evaluate`, or the matrices have not one column a label of the vocabulary.
    """
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    labels = len(vocabulary.names)
    if scores_NC.shape[1:] != (labels,):
        raise LesaError(f"scores have shape {scores_NC.shape}, expected one column for each of the {labels} labels")
    tasks = {"ZSL": vocabulary.unseen_columns, "GZSL": slice(0, labels), "seen": vocabulary.seen_columns}
    return {
        task: evaluate(scores_NC[:, columns], targets_NC[:, columns], rules, k)
        for task, columns in tasks.items()
        if columns.stop > columns.start
    }


def at_each_k(
    scores_NC: NDArray[Any], targets_NC: NDArray[Any], k: Sequence[int]
) -> dict[int, tuple[float, float, float]]:
    """Return precision, recall and F1, as fractions, by K."""
    labels = scores_NC.shape[1]
    for each in k:
        if not 1 <= each <= labels:
            raise LesaError(f"K is {each}, but there are {labels} labels to choose from: take K from 1 to {labels}")
    return {each: precision_recall_f1_at_k(scores_NC, targets_NC, each) for each in k}


def check(scores_NC: NDArray[Any], targets_NC: NDArray[Any]) -> None:
    """Refuse matrices that no metric is defined for."""
    if scores_NC.shape != targets_NC.shape or scores_NC.ndim != 2:
        raise LesaError(
            f"scores have shape {scores_NC.shape} and targets {targets_NC.shape}, expected both images x labels"
        )
    if 0 in scores_NC.shape:
        raise LesaError(f"{scores_NC.shape[0]} images x {scores_NC.shape[1]} labels leave nothing to evaluate")
    if place := first_where(scores_NC, lambda block: ~np.isfinite(block)):
        raise LesaError(
            f"the score at row {place[0]}, column {place[1]} is {scores_NC[place]}, expected finite numbers: "
            "look for NaN in that photo's regions, that label's vector or the model's weights"
        )
    if place := first_where(targets_NC, lambda block: ~np.isin(block, (-1, 0, 1))):
        raise LesaError(
            f"the target at row {place[0]}, column {place[1]} is {targets_NC[place]}, "
            "expected 1 (present), -1 (absent) or 0 (not annotated)"
        )


def first_where(matrix_NC: NDArray[Any], wrong: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> tuple[int, int] | None:
    """Return row and column of the first entry that is `wrong`, if there is one."""
    for rows in row_blocks(len(matrix_NC)):
        if (marks := wrong(matrix_NC[rows])).any():
            row, column = np.argwhere(marks)[0]
            return rows.start + int(row), int(column)
    return None
