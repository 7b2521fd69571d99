"""How much metrics change with other test images: spread over bootstrap draws, 95 % intervals, paired differences.

A draw takes as many images as the test set has, from the test set, with replacement. Every metric is computed for each
of many draws. An interval is the metric, plus and minus 1.96 standard deviations of its draws. The percentiles of the
draws are not used: an image that is drawn twice has the score of its copy, and this raises the average precision of
rare labels in every draw.
Copies of one image are found together, also under rules that order equal scores by their place in the file.
Two methods are compared on the same draws. So the spread of their difference leaves out the spread that they share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesa.errors import LesaError
from lesa.evaluation.metrics import hits_at_k, precision_recall_f1
from lesa.evaluation.report import SHORT, Report, RuledScores, apply_rules

DRAWS = 200
"""This number of draws gives a standard deviation with an error of about 5 %."""
NORMAL_95 = 1.959964
"""95 % of a normal distribution lie within this number of standard deviations from its mean."""


@dataclass(frozen=True)
class Interval:
    """A metric, or the difference of two metrics, with its 95 % interval over test images."""

    value: float
    low: float
    high: float


def draw_metrics(
    scores_NC: ArrayLike,
    targets_NC: ArrayLike,
    rules: str = "lesa",
    k: Sequence[int] = (3, 5),
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, NDArray[np.float64]]:
    """Return every metric of `Report.metrics` on bootstrap draws of the images, `D` values each, in percent.

    One seed draws the same images for all scores of one test set. A label without a present image in a draw is left
    out of the mean of that draw. A label without a present image in the whole test set has the precision 0, as in the
    report.

    Args:
        scores_NC: as for `evaluate`.
        targets_NC: as for `evaluate`.
        rules: as for `evaluate`.
        k: as for `evaluate`.
        draws: number of draws, D; at least 2.
        seed: the draws depend on it.
        progress: called with the number of labels done and the number of all labels.

    Raises:
        LesaError: as `evaluate`, or fewer than two draws.
    """
    if draws < 2:
        raise LesaError(f"{draws} draws give no spread: take at least 2, better {DRAWS}")
    ruled = apply_rules(scores_NC, targets_NC, rules, k)
    weights_DN = draw_weights(ruled.images_N, draws, seed)
    metrics: dict[str, NDArray[np.float64]] = {}
    for each in ruled.k:
        hits_N = hits_at_k(ruled.scores_NC, ruled.targets_NC, each)
        hits_D, present_D = (weights_DN @ counts_N.astype(float) for counts_N in (hits_N, ruled.present_N))
        at_k = precision_recall_f1(hits_D, present_D, float(ruled.images_N.sum()), each)
        metrics |= {f"{name}@{each}": 100 * values_D for name, values_D in zip(SHORT, at_k, strict=True)}
    return metrics | _draw_means(ruled, weights_DN, progress)


def draw_weights(images_N: NDArray[np.bool_], draws: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each draw contains each image, `D, N`. A draw takes as many images as are marked."""
    generator = np.random.default_rng(seed)
    evaluated = np.flatnonzero(images_N)
    weights_DN = np.zeros((draws, len(images_N)), np.uint16)
    for weights_N in weights_DN if len(evaluated) else ():
        weights_N[:] = np.bincount(generator.choice(evaluated, len(evaluated)), minlength=len(images_N))
    return weights_DN


def _draw_means(
    ruled: RuledScores, weights_DN: NDArray[np.uint16], progress: Callable[[int, int], None]
) -> dict[str, NDArray[np.float64]]:
    """Return the two means of average precision on each draw, in percent."""
    draws, labels = len(weights_DN), len(ruled.labels_C)
    total_D, weighted_D, drawn_D, present_D = np.zeros((4, draws))
    present_labels = 0
    for done, (scores_N, label_present_N, used_N) in enumerate(ruled.each_label(), start=1):
        if label_present_N.any():
            used_DN = weights_DN if used_N.all() else np.take(weights_DN, np.flatnonzero(used_N), axis=1)
            precision_D, count_D = draw_average_precision(scores_N, label_present_N, used_DN)
            total_D += precision_D
            weighted_D += precision_D * count_D
            drawn_D += count_D > 0
            present_D += count_D
            present_labels += 1
        progress(done, labels)
    # Labels that are present in no image have the precision 0 in every draw.
    share = present_labels / max(int(ruled.labels_C.sum()), 1)
    return {
        "mAP": 100 * share * total_D / np.maximum(drawn_D, 1),
        "weighted mAP": 100 * weighted_D / np.maximum(present_D, 1),
    }


def draw_average_precision(
    scores_N: NDArray[Any], present_N: NDArray[np.bool_], weights_DN: NDArray[np.uint16]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one label's average precision (a fraction) and its number of present images, on each draw, `D`.

    Only the scores of present images are thresholds. Each image belongs to a group between two thresholds, so a draw
    needs one pass over the images and no sorting.
    """
    thresholds_G = np.unique(scores_N[present_N])
    groups = len(thresholds_G)
    # Group 0 reaches the highest threshold. Images below all thresholds are never retrieved.
    group_N = groups - np.searchsorted(thresholds_G, scores_N, side="right")
    retrieved_DG = np.cumsum(_grouped_sums(group_N, weights_DN, groups), axis=1)
    present_DG = _grouped_sums(group_N[present_N], weights_DN[:, present_N], groups)
    quotient_DG = np.divide(
        np.cumsum(present_DG, axis=1), retrieved_DG, out=np.zeros_like(retrieved_DG), where=retrieved_DG > 0
    )
    count_D = present_DG.sum(axis=1)
    return (present_DG * quotient_DG).sum(axis=1) / np.maximum(count_D, 1), count_D


def _grouped_sums(group_N: NDArray[np.intp], weights_DN: NDArray[np.uint16], groups: int) -> NDArray[np.float64]:
    """Return the weight of each of the first `groups` groups in each draw, `D, G`."""
    return np.stack([np.bincount(group_N, weights_N, groups + 1)[:groups] for weights_N in weights_DN])


def intervals(report: Report, drawn: dict[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """Return each metric of a report with its 95 % interval, cut to 0 to 100.

    Args:
        report: the report.
        drawn: `draw_metrics` of the same scores.
    """
    whole = {name: interval(value, drawn[name]) for name, value in report.metrics().items()}
    return {name: Interval(each.value, max(each.low, 0.0), min(each.high, 100.0)) for name, each in whole.items()}


def paired_differences(
    report: Report,
    drawn: dict[str, NDArray[np.float64]],
    other: Report,
    other_drawn: dict[str, NDArray[np.float64]],
) -> dict[str, Interval]:
    """Return the difference of each metric, `report` minus `other`, with its 95 % interval.

    Both must be drawn with the same seed.
    """
    others = other.metrics()
    return {
        name: interval(value - others[name], drawn[name] - other_drawn[name])
        for name, value in report.metrics().items()
    }


def interval(value: float, drawn_D: NDArray[np.float64]) -> Interval:
    """Return a value with the interval of 1.96 standard deviations of its draws on each side."""
    half = NORMAL_95 * float(drawn_D.std(ddof=1))
    return Interval(value, value - half, value + half)
