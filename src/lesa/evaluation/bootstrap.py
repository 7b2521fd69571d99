"""How far metrics would move with other test images: bootstrap spread, 95 % intervals, paired differences.

The images of the test set are drawn again with replacement, many times, and every metric is computed for each draw. An
interval is the metric, plus and minus 1.96 standard deviations of its draws. (Not the percentiles of the draws: an
image that is drawn twice scores as high as itself, which lifts the average precision of rare labels in every draw.)
Under rules that break ties by the order of the file an image's own copies still count as found together.
Two methods are compared on the same draws, which leaves their difference and takes away what the images share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesa.errors import LesaError
from lesa.evaluation.metrics import each_label, hits_at_k, precision_recall_f1, present_per_image
from lesa.evaluation.rules import SHORT, Report, Rules, checked, counted_images, counted_labels

DRAWS = 200
"""Draws that give a standard deviation to about 5 %."""
NORMAL_95 = 1.959964
"""Standard deviations on each side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Interval:
    """A metric, or a difference of two, with its 95 % interval over test images."""

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

    Draws of one seed are the same images for all scores of one test set. A label of which a draw holds no present
    image stays out of that draw's mean; one without any in the whole set counts 0, as in the report.

    Args:
        scores_NC: as for `protocols.evaluate`.
        targets_NC: likewise.
        rules: likewise.
        k: likewise.
        draws: how many draws, D; at least 2.
        seed: decides the draws.
        progress: called with labels done and labels in all.

    Raises:
        LesaError: as `protocols.evaluate`, or fewer than two draws.
    """
    if draws < 2:
        raise LesaError(f"{draws} draws give no spread: take at least 2, better {DRAWS}")
    scores_NC, targets_NC, rule = checked(scores_NC, targets_NC, rules, k)
    present_N = present_per_image(targets_NC)
    images_N = counted_images(present_N, rule)
    weights_DN = draw_weights(images_N, draws, seed)
    metrics: dict[str, NDArray[np.float64]] = {}
    for each in k if rule.at_k else ():
        hits_D, present_D = (
            weights_DN @ counts_N.astype(float) for counts_N in (hits_at_k(scores_NC, targets_NC, each), present_N)
        )
        at_k = precision_recall_f1(hits_D, present_D, float(images_N.sum()), each)
        metrics |= {f"{name}@{each}": 100 * values_D for name, values_D in zip(SHORT, at_k, strict=True)}
    counted_C = counted_labels(targets_NC, rule, images_N)
    return metrics | _draw_means(scores_NC, targets_NC, rule, images_N, counted_C, weights_DN, progress)


def draw_weights(images_N: NDArray[np.bool_], draws: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each draw holds each image, `D, N`: as many draws of the marked images as there are."""
    generator = np.random.default_rng(seed)
    evaluated = np.flatnonzero(images_N)
    weights_DN = np.zeros((draws, len(images_N)), np.uint16)
    for weights_N in weights_DN if len(evaluated) else ():
        weights_N[:] = np.bincount(generator.choice(evaluated, len(evaluated)), minlength=len(images_N))
    return weights_DN


def _draw_means(
    scores_NC: NDArray[Any],
    targets_NC: NDArray[Any],
    rule: Rules,
    images_N: NDArray[np.bool_],
    counted_C: NDArray[np.bool_],
    weights_DN: NDArray[np.uint16],
    progress: Callable[[int, int], None],
) -> dict[str, NDArray[np.float64]]:
    """Return the two means of average precision on each draw, in percent."""
    draws, labels = len(weights_DN), len(counted_C)
    total_D, weighted_D, drawn_D, present_D = np.zeros((4, draws))
    carried = 0
    each = each_label(scores_NC, targets_NC, rule.masked, rule.ties, images_N)
    for done, (scores_N, label_present_N, used_N) in enumerate(each, start=1):
        if label_present_N.any():
            used_DN = weights_DN if used_N.all() else np.take(weights_DN, np.flatnonzero(used_N), axis=1)
            precision_D, count_D = draw_average_precision(scores_N, label_present_N, used_DN)
            total_D += precision_D
            weighted_D += precision_D * count_D
            drawn_D += count_D > 0
            present_D += count_D
            carried += 1
        progress(done, labels)
    # The labels that no image carries count 0 in every draw.
    share = carried / max(int(counted_C.sum()), 1)
    return {
        "mAP": 100 * share * total_D / np.maximum(drawn_D, 1),
        "weighted mAP": 100 * weighted_D / np.maximum(present_D, 1),
    }


def draw_average_precision(
    scores_N: NDArray[Any], present_N: NDArray[np.bool_], weights_DN: NDArray[np.uint16]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return one label's average precision on each draw, as a fraction, and its number of present images there, `D`.

    Only the scores of present images are thresholds: images fall into the groups between them, so a draw costs one
    pass over the images and no sorting.
    """
    thresholds_G = np.unique(scores_N[present_N])
    groups = len(thresholds_G)
    # Group 0 reaches the highest threshold; what falls below all of them is never retrieved.
    group_N = groups - np.searchsorted(thresholds_G, scores_N, side="right")
    retrieved_DG = np.cumsum(_grouped_sums(group_N, weights_DN, groups), axis=1)
    present_DG = _grouped_sums(group_N[present_N], weights_DN[:, present_N], groups)
    quotient_DG = np.divide(
        np.cumsum(present_DG, axis=1), retrieved_DG, out=np.zeros_like(retrieved_DG), where=retrieved_DG > 0
    )
    count_D = present_DG.sum(axis=1)
    return (present_DG * quotient_DG).sum(axis=1) / np.maximum(count_D, 1), count_D


def _grouped_sums(group_N: NDArray[np.intp], weights_DN: NDArray[np.uint16], groups: int) -> NDArray[np.float64]:
    """Return each draw's weight in each of the first `groups` groups, `D, G`."""
    return np.stack([np.bincount(group_N, weights_N, groups + 1)[:groups] for weights_N in weights_DN])


def intervals(report: Report, drawn: dict[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """Return each metric of a report with its 95 % interval within 0 to 100, from `draw_figures` of the same scores."""
    found = {name: interval(value, drawn[name]) for name, value in report.metrics().items()}
    return {name: Interval(each.value, max(each.low, 0.0), min(each.high, 100.0)) for name, each in found.items()}


def paired_differences(
    report: Report,
    drawn: dict[str, NDArray[np.float64]],
    other: Report,
    other_drawn: dict[str, NDArray[np.float64]],
) -> dict[str, Interval]:
    """Return each metric's difference, `report` minus `other`, with its 95 % interval; draws must be of one seed."""
    others = other.metrics()
    return {
        name: interval(value - others[name], drawn[name] - other_drawn[name])
        for name, value in report.metrics().items()
    }


def interval(value: float, drawn_D: NDArray[np.float64]) -> Interval:
    """Return a value with 1.96 standard deviations of its draws on each side."""
    half = NORMAL_95 * float(drawn_D.std(ddof=1))
    return Interval(value, value - half, value + half)
