"""The one idea: a photo becomes M codes that depend on no label; a label picks the code that suits it.

A label's score is the best dot product of its vector with the codes. What each region alone says for the label, its
evidence, tells where in the photo the tag comes from. `lesa.learn.model` learns what is computed here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in the upright photo's pixels."""
PEAK_SHARE = 0.5
"""A tag's box holds the regions with at least this share of its greatest evidence."""


@dataclass(frozen=True, eq=False)
class Codes:
    """A photo as M points in word space. They depend on no label."""

    codes_ME: Floats
    """The codes."""
    attention_MR: Floats
    """Where each code looks: sums to one over the regions."""
    regions_RE: Floats
    """Each region alone in word space: a code is a positive multiple of `attention_MR @ regions_RE`."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""


class Scored(NamedTuple):
    """What labels get from a photo's codes."""

    scores_C: Floats
    """The labels' scores: unbounded margins, not probabilities."""
    winner_C: NDArray[np.intp]
    """The code that each label picked, 0 to M - 1."""


def score(codes: Codes, vectors_CE: Floats, selection: str) -> Scored:
    """Let each label pick the code that suits it best, and return the labels' scores.

    Args:
        codes: of a photo.
        vectors_CE: unit vectors of the labels, `C, E`.
        selection: `max` or `log-mean-exp`, see `select`.
    """
    by_code_MC = codes.codes_ME @ vectors_CE.T
    return Scored(select(by_code_MC, selection), by_code_MC.argmax(axis=0))


def select(by_code_MC: Floats, selection: str) -> Floats:
    """Reduce each label's dot products with the M codes to its score: the best one, or a soft maximum.

    The soft maximum is log(mean(exp(.))) over the codes: at most the best, and at least the best less log M.
    """
    best_C: Floats = by_code_MC.max(axis=0)
    if selection == "max":
        return best_C
    soft_C: Floats = best_C + np.log(np.exp(by_code_MC - best_C).mean(axis=0))
    return soft_C


def evidence(codes: Codes, vectors_CE: Floats, winner_C: NDArray[np.intp] | None = None) -> Floats:
    """Return what each region alone says for each label, `C, R`, in units of the score.

    A code is its attention's mean of the regions in word space times a gain. So the mean of a label's evidence,
    weighted with the attention of its winning code, is exactly that code's dot product with the label: its score.
    (A soft maximum's score lies below it by at most log M.) The attention itself is left out of the map: it says where
    the code looks for whatever it finds there, and measured it is the worse evidence (docs/results.md).

    Args:
        codes: of a photo.
        vectors_CE: unit vectors of the labels, `C, E`.
        winner_C: the code that each label picked; the best one if not given.
    """
    if winner_C is None:
        winner_C = (codes.codes_ME @ vectors_CE.T).argmax(axis=0)
    length_M = np.linalg.norm(codes.attention_MR @ codes.regions_RE, axis=1)
    gain_M = np.linalg.norm(codes.codes_ME, axis=1) / np.maximum(length_M, np.finfo(np.float32).tiny)
    found_CR: Floats = gain_M[winner_C, None] * (vectors_CE @ codes.regions_RE.T)
    return found_CR


def shifted(map_HW: Floats, region_shift: float) -> Floats:
    """Return a map over the grid with each value where its region looks: `offset` rows below and columns right.

    What lies between is interpolated; the first row and column keep theirs.
    """
    for axis in (0, 1):
        before = np.concatenate([map_HW.take([0], axis), map_HW], axis).take(range(map_HW.shape[axis]), axis)
        map_HW = map_HW + np.float32(region_shift) * (before - map_HW)
    return map_HW


def peak_box(heat: Floats, box: tuple[float, float, float, float]) -> Box:
    """Return the box around the regions that are joined to the hottest one and have at least half its heat.

    Args:
        heat: attention or evidence over the grid (rows, columns), nowhere negative; the whole grid if it is zero.
        box: the part of the photo that the grid covers, in its pixels.
    """
    rows, columns = heat.shape
    start = divmod(int(heat.argmax()), columns)
    down, across = zip(*_joined(heat >= PEAK_SHARE * heat.max(), start), strict=True)
    left, top, right, bottom = box
    wide, high = (right - left) / columns, (bottom - top) / rows
    return (
        round(left + min(across) * wide),
        round(top + min(down) * high),
        round(left + (max(across) + 1) * wide),
        round(top + (max(down) + 1) * high),
    )


def _joined(hot: NDArray[np.bool_], start: tuple[int, int]) -> set[tuple[int, int]]:
    """Return the regions (row, column) that are hot and joined to the start by sides."""
    joined, edge = {start}, [start]
    while edge:
        row, column = edge.pop()
        around = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
        inside = {(r, c) for r, c in around if 0 <= r < hot.shape[0] and 0 <= c < hot.shape[1] and hot[r, c]}
        edge += inside - joined
        joined |= inside
    return joined
