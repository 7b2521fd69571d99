"""Average precision, and precision, recall and F1 at K: pure functions of scores and targets, as fractions.

Targets are +1 present, -1 absent, 0 not annotated. Scores are compared, and no function such as a sigmoid is applied to
them: it would make large scores equal. Scores must be finite; `evaluate` checks this. The functions work block by
block, so that a test set of 100,000 images and 1,000 labels needs little memory besides its scores.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lesa.evaluation.rules import Ties

LabelScores: TypeAlias = tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]
"""One label: the scores of its images, whether they are present, and which of the N images they are."""

COLUMNS = 64
"""Number of columns copied at a time: one cache line of 8-bit targets, four of single-precision scores."""
ROWS = 2048
"""Number of rows ranked at a time."""


def average_precision(scores_N: NDArray[Any], present_N: NDArray[np.bool_]) -> float:
    """Return the average precision of one label; it is 0 if no image is present.

    It is the mean over the present images of the precision among all images with the same or a higher score. Images
    with equal scores are found together. The result is that of scikit-learn's `average_precision_score`, up to rounding
    in double precision; that function also gives 0 if no image is present.

    Example:
        >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
        0.8333333333333333
    """
    present_P: NDArray[Any] = np.sort(scores_N[present_N])
    if not len(present_P):
        return 0.0
    all_N = np.sort(scores_N)
    found_P = len(present_P) - np.searchsorted(present_P, present_P, side="left")
    retrieved_P = len(all_N) - np.searchsorted(all_N, present_P, side="left")
    return float(np.mean(found_P / retrieved_P))


def break_ties(scores_N: NDArray[Any], first: Literal["earlier", "later"]) -> NDArray[np.int32]:
    """Return ranks, higher is better, in which images with equal scores are in the order of the file.

    Some programs sort the images and go through the list. Their result for equal scores depends on the order of the
    images: the `earlier` or the `later` ones come first. The average precision of the ranks equals their result.
    """
    if first == "earlier":
        return break_ties(scores_N[::-1], "later")[::-1]
    ranks_N = np.empty(len(scores_N), np.int32)
    ranks_N[np.argsort(scores_N, kind="stable")] = np.arange(len(scores_N), dtype=np.int32)
    return ranks_N


def each_label(
    scores_NC: NDArray[Any],
    targets_NC: NDArray[Any],
    masked: bool,
    ties: Ties = "grouped",
    images_N: NDArray[np.bool_] | None = None,
) -> Iterator[LabelScores]:
    """Yield the values that average precision needs, label by label.

    Args:
        scores_NC: finite scores, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        masked: whether images that are not annotated for a label (0) are left out. If not, they are absent.
        ties: how equal scores are treated.
        images_N: the images to use; all if not given.
    """
    kept_N = np.ones(len(scores_NC), dtype=bool) if images_N is None else images_N
    for start in range(0, scores_NC.shape[1], COLUMNS):
        block = slice(start, start + COLUMNS)
        # A matrix is stored by rows. The transposed copy of a few columns puts the numbers of each label side by side.
        scores_CN = np.ascontiguousarray(scores_NC[:, block].T)
        targets_CN = np.ascontiguousarray(targets_NC[:, block].T)
        for scores_N, targets_N in zip(scores_CN, targets_CN, strict=True):
            used_N = kept_N & (targets_N != 0) if masked else kept_N
            used_scores = scores_N[used_N] if ties == "grouped" else break_ties(scores_N[used_N], ties)
            yield used_scores, targets_N[used_N] > 0, used_N


def average_precision_C(labels: Iterable[LabelScores]) -> NDArray[np.float64]:
    """Return the average precision of each label that `each_label` yields, `C`."""
    return np.array([average_precision(scores_N, present_N) for scores_N, present_N, _ in labels])


def hits_at_k(scores_NC: NDArray[Any], targets_NC: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the number of present labels among the K best labels of each image, `N`."""
    return _counted(len(scores_NC), lambda rows: top_k(scores_NC[rows], k) & (targets_NC[rows] > 0))


def present_per_image(targets_NC: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of present labels of each image, `N`."""
    return _counted(len(targets_NC), lambda rows: targets_NC[rows] > 0)


def _counted(images: int, marks: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Count the marks of each row, block by block."""
    blocks = [np.count_nonzero(marks(rows), axis=1) for rows in row_blocks(images)]
    return np.concatenate([np.zeros(0, np.int64), *blocks])


def precision_recall_f1(hits: Any, present: Any, images: Any, k: int) -> NDArray[np.float64]:
    """Return micro precision, recall and F1, `3` or `3, D`, from counts over all images together.

    P = hits / (images K), R = hits / present, F1 = 2 P R / (P + R) = 2 hits / (images K + present). A label that is
    not annotated (0) counts as absent. A quotient whose denominator is 0 is 0.

    Args:
        hits: number of present labels among the K best, a number or `D`.
        present: number of present labels, a number or `D`.
        images: number of images, a number or `D`.
        k: number of labels that each image gets.
    """
    hits, given, present = (np.asarray(count, np.float64) for count in (hits, images * k, present))
    quotients = (hits, given), (hits, present), (2 * hits, given + present)
    return np.array([np.divide(a, b, out=np.zeros_like(hits), where=b > 0) for a, b in quotients])


def top_k(scores_NC: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Mark the K best labels of each image, `N, C`. Of labels with equal scores the earlier columns come first."""
    cut_N1 = np.partition(scores_NC, -k, axis=1)[:, -k, None]
    above_NC: NDArray[np.bool_] = scores_NC > cut_N1
    tied_NC: NDArray[np.bool_] = scores_NC == cut_N1
    room_N1 = k - np.count_nonzero(above_NC, axis=1, keepdims=True)
    fits_NC: NDArray[np.bool_] = np.cumsum(tied_NC, axis=1, dtype=np.int32) <= room_N1
    return above_NC | (tied_NC & fits_NC)


def row_blocks(rows: int) -> Iterator[slice]:
    """Yield slices that together cover `rows` rows."""
    for start in range(0, rows, ROWS):
        yield slice(start, start + ROWS)
