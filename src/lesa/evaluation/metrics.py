"""Average precision, and precision, recall and F1 at K: pure functions of scores and targets, as fractions.

Targets are +1 present, -1 absent, 0 not annotated. Scores are compared and never squashed (a sigmoid would tie large
ones); they must be finite, which `protocols.evaluate` checks. Work goes block by block, so that a test set of 100,000
images and 1,000 labels needs little memory beside its scores.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ties: TypeAlias = Literal["grouped", "earlier", "later"]
"""Images of one score count as found together, or one by one: the earlier in the file first, or the later."""

COLUMNS = 64
"""Columns copied at a time: a cache line of 8-bit targets, four of single-precision scores."""
ROWS = 2048
"""Rows ranked at a time."""


def average_precision(scores_N: NDArray[Any], present_N: NDArray[np.bool_]) -> float:
    """Return the average precision of one label; without a present image it is 0.

    The mean, over the present images, of the precision among all images that score at least as high. Images of one
    score count as found together, as in scikit-learn's `average_precision_score` (equal to rounding in double
    precision, where scikit-learn's convention for no positives is 0 as well).

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
    """Return ranks, higher is better, in which images of one score stand in the order of the file.

    Average precision of the ranks is that of programs which sort the images and walk down the list: what they make of
    equal scores then depends on the order of the images, `earlier` or `later` ones first.
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
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield what average precision reads, label by label: scores and presence of its images, and which images they are.

    Args:
        scores_NC: finite scores, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        masked: whether images that are not annotated for a label (0) are left out of it; else they are absent.
        ties: what becomes of equal scores.
        images_N: the images that take part; all if not given.
    """
    kept_N = np.ones(len(scores_NC), dtype=bool) if images_N is None else images_N
    for start in range(0, scores_NC.shape[1], COLUMNS):
        block = slice(start, start + COLUMNS)
        # A matrix is stored by rows: the transposed copy of a few columns puts each label's numbers side by side.
        scores_CN = np.ascontiguousarray(scores_NC[:, block].T)
        targets_CN = np.ascontiguousarray(targets_NC[:, block].T)
        for scores_N, targets_N in zip(scores_CN, targets_CN, strict=True):
            used_N = kept_N & (targets_N != 0) if masked else kept_N
            used_scores = scores_N[used_N] if ties == "grouped" else break_ties(scores_N[used_N], ties)
            yield used_scores, targets_N[used_N] > 0, used_N


def average_precision_C(
    scores_NC: NDArray[Any],
    targets_NC: NDArray[Any],
    masked: bool,
    ties: Ties = "grouped",
    images_N: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the average precision of each label, `C`; the arguments are those of `each_label`."""
    labels = each_label(scores_NC, targets_NC, masked, ties, images_N)
    return np.array([average_precision(scores_N, present_N) for scores_N, present_N, _ in labels])


def hits_at_k(scores_NC: NDArray[Any], targets_NC: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return how many of each image's K best labels are present, `N`."""
    return _counted(len(scores_NC), lambda rows: top_k(scores_NC[rows], k) & (targets_NC[rows] > 0))


def present_per_image(targets_NC: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of present labels of each image, `N`."""
    return _counted(len(targets_NC), lambda rows: targets_NC[rows] > 0)


def _counted(images: int, marks: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Count each row's marks, a block of rows at a time."""
    blocks = [np.count_nonzero(marks(rows), axis=1) for rows in row_blocks(images)]
    return np.concatenate([np.zeros(0, np.int64), *blocks])


def precision_recall_f1(hits: Any, present: Any, images: Any, k: int) -> NDArray[np.float64]:
    """Return micro precision, recall and F1, `3` or `3, D`, from counts over all images together.

    P = hits / (images K), R = hits / present, F1 = 2 P R / (P + R) = 2 hits / (images K + present). A label that is
    not annotated (0) counts as absent. Quotients of nothing are 0.

    Args:
        hits: present labels among the K best, a number or `D`.
        present: present labels, likewise.
        images: images, likewise.
        k: how many labels each image got.
    """
    hits, given, present = (np.asarray(count, np.float64) for count in (hits, images * k, present))
    quotients = (hits, given), (hits, present), (2 * hits, given + present)
    return np.array([np.divide(a, b, out=np.zeros_like(hits), where=b > 0) for a, b in quotients])


def top_k(scores_NC: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Mark the K best labels of each image, `N, C`; of labels with one score the earlier columns are taken first."""
    cut_N1 = np.partition(scores_NC, -k, axis=1)[:, -k, None]
    above_NC: NDArray[np.bool_] = scores_NC > cut_N1
    tied_NC: NDArray[np.bool_] = scores_NC == cut_N1
    room_N1 = k - np.count_nonzero(above_NC, axis=1, keepdims=True)
    fits_NC: NDArray[np.bool_] = np.cumsum(tied_NC, axis=1, dtype=np.int32) <= room_N1
    return above_NC | (tied_NC & fits_NC)


def row_blocks(rows: int) -> Iterator[slice]:
    """Yield slices that cover `rows` rows, a block at a time."""
    for start in range(0, rows, ROWS):
        yield slice(start, start + ROWS)
