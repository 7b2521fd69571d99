"""Named metric rules and what they make of scores and targets: a Report, in percent.

Papers compute these metrics by different rules, which moves them by tens of points; a Report therefore names its
rules and carries the fingerprint of its test set (images, labels, mean present labels per image).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesa.errors import LesaError, did_you_mean
from lesa.evaluation.metrics import (
    Ties,
    average_precision_C,
    hits_at_k,
    precision_recall_f1,
    present_per_image,
    row_blocks,
)
from lesa.labels import Vocabulary


@dataclass(frozen=True)
class Rules:
    """What a paper or a library does where others do something else. The defaults are the authors' program's."""

    at_k: bool = True
    """Whether the rules define precision, recall and F1 at K: micro, over all labels."""
    labelled_images_only: bool = False
    """Whether images without a present label are left out of every metric."""
    masked: bool = True
    """Whether average precision leaves out images that are not annotated for a label (0), or counts them absent."""
    annotated_labels_only: bool = False
    """Whether labels that no image is annotated for are left out of the mean; else they count 0."""
    ties: Ties = "grouped"
    """What average precision makes of equal scores."""


RULES = {
    "lesa": Rules(),
    "biam_oi": Rules(labelled_images_only=True, annotated_labels_only=True, ties="earlier"),
    "miil": Rules(labelled_images_only=True, masked=False, ties="later"),
    "openimages": Rules(at_k=False, annotated_labels_only=True),
    "sklearn": Rules(at_k=False, masked=False),
}
"""The rules by name.

* `lesa`: the authors' program (its `core/utils.py`). Micro P, R and F1 at K over all images, with labels that are not
  annotated as absent; average precision over the annotated images, 0 for a label without positives.
* `biam_oi`: BiAM's program for Open Images (its `evaluate_openimages.py`): images without a present label are dropped,
  then labels without any annotation.
* `miil`: SDL, ML-Decoder and others after them (their `helper_functions.py`): images without a present label are
  dropped; what is not annotated is absent.
* `openimages`: the Open Images evaluation: the mean over the labels with at least one annotation.
* `sklearn`: scikit-learn's macro `average_precision_score`.
"""

AT_K = ("precision", "recall", "f1")
"""The fields of a Report that are mappings from K."""
SHORT = ("P", "R", "F1")
"""What tables call them."""


@dataclass(frozen=True)
class Report:
    """The metrics of one task under one set of rules, in percent, with the fingerprint of the test set."""

    rules: str
    """Name of the rules."""
    images: int
    """Number of images judged: those that the rules drop are not counted."""
    labels: int
    """Number of labels in the means: those that the rules leave out are not counted."""
    positives_per_image: float
    """Mean number of present labels per image: K * P@K / R@K of any micro table shows it too."""
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
    average_precision_C: tuple[float | None, ...]
    """Average precision of each label, in the order of the columns; None for a label that the rules leave out."""

    def metrics(self) -> dict[str, float]:
        """Return all metrics but the single labels', by the names that tables give them: `P@3`, ..., `mAP`."""
        at_k = {
            f"{short}@{k}": getattr(self, name)[k] for k in self.f1 for short, name in zip(SHORT, AT_K, strict=True)
        }
        means = {"mAP": self.mean_average_precision, "weighted mAP": self.weighted_mean_average_precision}
        return at_k | means

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
            raise LesaError(f"this is not a report of this version: {', '.join(sorted(odd))} missing or unknown")
        at_k = {name: {int(k): value for k, value in values[name].items()} for name in AT_K}
        return cls(**{**values, **at_k, "average_precision_C": tuple(values["average_precision_C"])})


def evaluate(scores_NC: ArrayLike, targets_NC: ArrayLike, rules: str = "lesa", k: Sequence[int] = (3, 5)) -> Report:
    """Judge scores against targets by named rules.

    Args:
        scores_NC: any finite numbers, higher is better, `N, C`; only their order counts.
        targets_NC: +1 present, -1 absent, 0 not annotated, `N, C`; or true present, false absent.
        rules: a name in `RULES`.
        k: the K of precision, recall and F1.

    Raises:
        LesaError: unknown rules, shapes that differ, no image or no label, a score that is not finite, a target that
            is none of +1, -1 and 0, or a K that is not among 1 to C.
    """
    scores_NC, targets_NC, rule = checked(scores_NC, targets_NC, rules, k)
    present_N = present_per_image(targets_NC)
    images_N = counted_images(present_N, rule)
    images, present = int(images_N.sum()), int(present_N.sum())
    at_k = {
        each: 100 * precision_recall_f1(hits_at_k(scores_NC, targets_NC, each).sum(), present, images, each)
        for each in (k if rule.at_k else ())
    }
    precision_C = 100 * average_precision_C(scores_NC, targets_NC, rule.masked, rule.ties, images_N)
    counted_C = counted_labels(targets_NC, rule, images_N)
    present_C = np.count_nonzero(targets_NC > 0, axis=0)
    return Report(
        rules=rules,
        images=images,
        labels=int(counted_C.sum()),
        positives_per_image=present / max(images, 1),
        precision={k: float(values[0]) for k, values in at_k.items()},
        recall={k: float(values[1]) for k, values in at_k.items()},
        f1={k: float(values[2]) for k, values in at_k.items()},
        mean_average_precision=float(precision_C[counted_C].mean()) if counted_C.any() else 0.0,
        weighted_mean_average_precision=float(precision_C @ present_C / max(present, 1)),
        average_precision_C=tuple(
            value if counted else None for value, counted in zip(precision_C.tolist(), counted_C, strict=True)
        ),
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
        LesaError: as `evaluate`, or the matrices have not one column per label of the vocabulary.
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


def counted_images(present_N: NDArray[np.int64], rule: Rules) -> NDArray[np.bool_]:
    """Mark the images that the rules judge, `N`, by their numbers of present labels."""
    return present_N > 0 if rule.labelled_images_only else np.ones(len(present_N), dtype=bool)


def counted_labels(targets_NC: NDArray[Any], rule: Rules, images_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the labels that the rules' mean counts, `C`: all, or those with an annotation in a judged image."""
    annotated_C = np.zeros(targets_NC.shape[1], dtype=bool)
    for rows in row_blocks(len(targets_NC)):
        annotated_C |= (targets_NC[rows][images_N[rows]] != 0).any(axis=0)
    return annotated_C if rule.annotated_labels_only else np.ones_like(annotated_C)


def checked(
    scores_NC: ArrayLike, targets_NC: ArrayLike, rules: str, k: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any], Rules]:
    """Return scores and targets as arrays, and the rules of that name, if they make sense together."""
    rule = _find_rules(rules)
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    if targets_NC.dtype == bool:
        targets_NC = np.where(targets_NC, np.int8(1), np.int8(-1))
    _check(scores_NC, targets_NC)
    check_k(k, rules, scores_NC.shape[1])
    return scores_NC, targets_NC, rule


def _find_rules(name: str) -> Rules:
    """Return the rules of a name.

    Raises:
        LesaError: there are none.
    """
    if name not in RULES:
        raise LesaError(f"there are no metric rules {name!r}; {did_you_mean(name, RULES)}")
    return RULES[name]


def check_k(k: Sequence[int], rules: str, labels: int) -> None:
    """Refuse a K that is not a number of labels, where the rules use K."""
    for each in k if _find_rules(rules).at_k else ():
        if each not in range(1, labels + 1):
            raise LesaError(f"K is {each}, but there are {labels} labels to choose from: take K from 1 to {labels}")


def _check(scores_NC: NDArray[Any], targets_NC: NDArray[Any]) -> None:
    """Refuse matrices that no metric is defined for."""
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
    """Refuse targets that say neither present, absent nor not annotated."""
    if place := _first_where(targets_NC, lambda block: ~np.isin(block, (-1, 0, 1))):
        raise LesaError(
            f"the target at row {place[0]}, column {place[1]} is {targets_NC[place]}, "
            "expected 1 (present), -1 (absent) or 0 (not annotated)"
        )


def _first_where(matrix_NC: NDArray[Any], wrong: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> tuple[int, int] | None:
    """Return row and column of the first entry that is `wrong`, if there is one."""
    for rows in row_blocks(len(matrix_NC)):
        if (marks := wrong(matrix_NC[rows])).any():
            row, column = np.argwhere(marks)[0]
            return rows.start + int(row), int(column)
    return None
