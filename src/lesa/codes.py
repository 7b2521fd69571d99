"""The central idea: a photo becomes M codes that do not depend on any label; each label picks the code that fits it.

A label's score is the best dot product of its vector with the codes. A region's evidence for
a label is the dot product of this region alone with the label's vector, times the code's gain; it shows where in the
photo the tag comes from. `lesa.learn.model` learns to make the codes.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Selection = Literal["max", "log-mean-exp"]
"""How a label's score follows from its M dot products, see `select`."""
SELECTIONS: tuple[str, ...] = get_args(Selection)
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in the upright photo's pixels."""
PEAK_SHARE = 0.5
"""A tag's box encloses the regions with at least this share of the greatest evidence."""


@dataclass(frozen=True, eq=False)
class Codes:
    """A photo as M points in word space. They do not depend on any label."""

    codes_ME: Floats
    """The codes."""
    attention_MR: Floats
    """The weight of each region in each code: it sums to one over the regions."""
    regions_RE: Floats
    """Each region alone, in word space. The codes are positive multiples of the rows of `attention_MR @ regions_RE`. A
    bundle of the recipe `best` has codes of two parts, and each part has multiples of its own."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""


class Scored(NamedTuple):
    """The result of scoring labels with a photo's codes."""

    scores_C: Floats
    """The labels' scores: unbounded margins, not probabilities."""
    winner_C: NDArray[np.intp]
    """The number of the code that each label picked, 0 to M - 1."""


def score(codes: Codes, points_CE: Floats, selection: str) -> Scored:
    """Let each label pick the code that fits it best, and return the labels' scores.

    Args:
        codes: the codes of a photo.
        points_CE: the labels' points among the codes, `C, E`: their unit vectors, or what the label map makes of them.
        selection: `max` or `log-mean-exp`, see `select`.
    """
    by_code_MC = codes.codes_ME @ points_CE.T
    return Scored(select(by_code_MC, selection), by_code_MC.argmax(axis=0))


def select(by_code_MC: Floats, selection: str) -> Floats:
    """Reduce each label's dot products with the M codes to its score: the greatest one, or a soft maximum.

    The soft maximum is log(mean(exp(.))) over the codes. It lies between the greatest one minus log M and the
    greatest one.
    """
    best_C: Floats = by_code_MC.max(axis=0)
    if selection == "max":
        return best_C
    soft_C: Floats = best_C + np.log(np.exp(by_code_MC - best_C).mean(axis=0))
    return soft_C


def evidence(codes: Codes, points_CE: Floats, winner_C: NDArray[np.intp] | None = None) -> Floats:
    """Return the evidence of each region for each label, `C, R`, in units of the score.

    A code is a gain times the mean of the regions in word space, weighted with the code's attention. So the mean of a
    label's evidence, weighted with the attention of its winning code, is exactly that code's dot product with the
    label: the label's score. (With a soft maximum the score is lower by at most log M.) The map does not include the
    attention: attention shows where the code looks for any label, and it was the worse evidence in a measurement
    (docs/results.md).

    Args:
        codes: the codes of a photo.
        points_CE: the labels' points among the codes, `C, E`: their unit vectors, or what the label map makes of them.
        winner_C: the code that each label picked; the best one if not given.
    """
    if winner_C is None:
        winner_C = (codes.codes_ME @ points_CE.T).argmax(axis=0)
    length_M = np.linalg.norm(codes.attention_MR @ codes.regions_RE, axis=1)
    gain_M = np.linalg.norm(codes.codes_ME, axis=1) / np.maximum(length_M, np.finfo(np.float32).tiny)
    evidence_CR: Floats = gain_M[winner_C, None] * (points_CE @ codes.regions_RE.T)
    return evidence_CR


def shifted(map_HW: Floats, region_shift: float) -> Floats:
    """Return a map over the grid, moved down and right by `region_shift` cells, because a region's content lies there.

    Values between cells are interpolated; the first row and column are repeated.
    """
    for axis in (0, 1):
        before = np.concatenate([map_HW.take([0], axis), map_HW], axis).take(range(map_HW.shape[axis]), axis)
        map_HW = map_HW + np.float32(region_shift) * (before - map_HW)
    return map_HW


def peak_box(heat: Floats, box: tuple[float, float, float, float]) -> Box:
    """Return the box around the hottest region and the regions connected to it that have at least half its heat.

    Args:
        heat: attention or evidence over the grid (rows, columns), never negative. If it is zero everywhere, the box is
            the whole grid.
        box: the part of the photo that the grid covers, in pixels.
    """
    rows, columns = heat.shape
    start = divmod(int(heat.argmax()), columns)
    down, across = zip(*_connected(heat >= PEAK_SHARE * heat.max(), start), strict=True)
    left, top, right, bottom = box
    wide, high = (right - left) / columns, (bottom - top) / rows
    return (
        round(left + min(across) * wide),
        round(top + min(down) * high),
        round(left + (max(across) + 1) * wide),
        round(top + (max(down) + 1) * high),
    )


def _connected(hot: NDArray[np.bool_], start: tuple[int, int]) -> set[tuple[int, int]]:
    """Return the hot regions (row, column) that are connected to `start` through shared sides."""
    connected, edge = {start}, [start]
    while edge:
        row, column = edge.pop()
        around = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
        inside = {(r, c) for r, c in around if 0 <= r < hot.shape[0] and 0 <= c < hot.shape[1] and hot[r, c]}
        edge += inside - connected
        connected |= inside
    return connected
