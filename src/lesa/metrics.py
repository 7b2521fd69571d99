"""Average precision, and precision, recall and F1 at K: pure functions of scores and targets, as fractions.

Targets are +1 present, -1 absent, 0 not annotated. Scores are compared and never squashed (a sigmoid would tie large
ones); they must be finite, which `protocols.evaluate` checks. Work goes block by block, so that a test set of 100,000
images and 1,000 labels needs little memory beside its scores.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    present_P = np.sort(scores_N[present_N])
    if not len(present_P):
        return 0.0
    all_N = np.sort(scores_N)
    found_P = len(present_P) - np.searchsorted(present_P, present_P, side="left")
    retrieved_P = len(all_N) - np.searchsorted(all_N, present_P, side="left")
    return float(np.mean(found_P / retrieved_P))


def average_precision_C(scores_NC: NDArray[Any], targets_NC: NDArray[Any], masked: bool) -> NDArray[np.float64]:
    """Return the average precision of each label, `C`.

    Args:
        scores_NC: finite scores, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        masked: whether images that are not annotated for a label (0) are left out of it; else they are absent.
    """
    precision_C = np.zeros(scores_NC.shape[1])
    for start in range(0, len(precision_C), COLUMNS):
        block = slice(start, start + COLUMNS)
        # A matrix is stored by rows: the transposed copy of a few columns puts each label's numbers side by side.
        scores_CN = np.ascontiguousarray(scores_NC[:, block].T)
        targets_CN = np.ascontiguousarray(targets_NC[:, block].T)
        for label, (scores_N, targets_N) in enumerate(zip(scores_CN, targets_CN, strict=True), start):
            used_N = targets_N != 0 if masked else slice(None)
            precision_C[label] = average_precision(scores_N[used_N], targets_N[used_N] > 0)
    return precision_C


def precision_recall_f1_at_k(scores_NC: NDArray[Any], targets_NC: NDArray[Any], k: int) -> tuple[float, float, float]:
    """Return micro precision, recall and F1 of the K best labels of each image.

    P = TP / (N K) and R = TP / present, counted over all images together; F1 is their harmonic mean. A label that is
    not annotated (0) counts as absent, an image without a present label as any other. Quotients of nothing are 0.

    Args:
        scores_NC: finite scores, `N, C`.
        targets_NC: +1, -1 or 0, `N, C`.
        k: how many labels each image gets, 1 to C.
    """
    images = len(scores_NC)
    hits = sum(int(np.count_nonzero(top_k(scores_NC[rows], k) & (targets_NC[rows] > 0))) for rows in row_blocks(images))
    present = sum(int(np.count_nonzero(targets_NC[rows] > 0)) for rows in row_blocks(images))
    precision = hits / (images * k) if images else 0.0
    recall = hits / present if present else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0


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
