"""Searching an index of photos' codes: words or a photo in, photos out, with the place in each; no photo is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesa.codes import Box, Floats, select
from lesa.errors import LesaError
from lesa.images import crop_box
from lesa.index.files import Records, checked_manifest, neighbours_of, open_records, replay
from lesa.index.neighbours import MOST_ASKED, Neighbours, can_build
from lesa.tagger import Tagger

ROWS_AT_ONCE = 32
"""Photos whose codes are made into floats together: with ten codes of 384 numbers 0.5 MB, which a cache holds."""

Answer = Callable[[Floats, Floats], tuple[Floats, NDArray[np.intp]]]
"""8-bit codes as floats (B, M, E) and their scales (B, M) -> scores (B) and the winning codes (B)."""


@dataclass(frozen=True)
class Hit:
    """A photo that was found, and the place in it."""

    photo: str
    """Its path below the indexed folder."""
    score: float
    """By words: an unbounded margin, as a tag's. By a photo: -1 to 1."""
    box: Box
    """The place that the winning code looked at most."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""


class Index:
    """An index, opened for searching.

    Example:
        index = Index("photos.index", Tagger("mine.lesa"))
        for hit in index.find("red car", top=3):
            print(hit.photo, hit.score, hit.box)
    """

    def __init__(self, path: Path | str, tagger: Tagger, exact: bool = False) -> None:
        """Open an index.

        Args:
            path: the folder that `update_index` wrote.
            tagger: of the bundle that it was made with.
            exact: compare every code, also where a vector index is there.

        Raises:
            LesaError: it is not an index, is damaged, holds no photo, or was made with another bundle.
        """
        path = Path(path)
        manifest = checked_manifest(path, tagger.bundle)
        self.folder = Path(manifest["folder"])
        self._tagger = tagger
        photos, self.failed = replay(path, manifest)
        if not photos:
            raise LesaError(f"{path} holds no photo: index a folder whose photos can be read")
        self._photos = list(photos.items())
        self._rows = np.array([entry.row for entry in photos.values()])
        self._records = open_records(path, manifest, tagger.bundle.manifest)
        self._neighbours: Neighbours | None = None
        if not exact and (file := neighbours_of(path, manifest)).exists() and can_build():
            self._neighbours = Neighbours(file, tagger.bundle.manifest.attentions)

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def compares_all(self) -> bool:
        """Whether a search compares every code; if not, a vector index says which."""
        return self._neighbours is None

    def find(self, words: str, top: int = 10) -> list[Hit]:
        """Return the photos that answer a word or phrase best, the best first.

        Raises:
            LesaError: there is no vector for the words.
        """
        vector_E = self._tagger.labels([words]).vectors_CE[0]

        def answer(codes_BME: Floats, scale_BM: Floats) -> tuple[Floats, NDArray[np.intp]]:
            products_N = codes_BME.reshape(-1, len(vector_E)) @ vector_E
            by_code_MB = (products_N.reshape(scale_BM.shape) * scale_BM).T
            return select(by_code_MB, self._tagger.bundle.manifest.selection), by_code_MB.argmax(axis=0)

        return self._hits(answer, vector_E[None], top)

    def like(self, photo: Path | str, top: int = 10) -> list[Hit]:
        """Return the photos whose codes are most alike to a photo's, the most alike first; it finds itself if indexed.

        Each code of either photo is compared with the other photo's nearest code: the score is the mean of these
        cosines over the one photo's codes and over the other's, and the mean of the two. A hit's box belongs to the
        code that is nearest to any of the given photo's.

        Raises:
            LesaError: the photo cannot be read.
        """
        codes_ME = self._tagger.codes(photo).codes_ME
        given_EM = (codes_ME / _norm(codes_ME)[:, None]).T

        def answer(codes_BME: Floats, scale_BM: Floats) -> tuple[Floats, NDArray[np.intp]]:
            products_BMM = (codes_BME.reshape(-1, len(given_EM)) @ given_EM).reshape(*scale_BM.shape, -1)
            cosines_BMM = products_BMM / _norm(codes_BME)[:, :, None]
            nearest_BM = cosines_BMM.max(axis=2)
            alike_B = (nearest_BM.mean(axis=1) + cosines_BMM.max(axis=1).mean(axis=1)) / 2
            return alike_B, nearest_BM.argmax(axis=1)

        return self._hits(answer, given_EM.T, top)

    def _hits(self, answer: Answer, queries_QE: Floats, top: int) -> list[Hit]:
        numbers = self._candidates(queries_QE, top)
        rows = self._rows[numbers]
        blocks = (self._block(rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(rows), ROWS_AT_ONCE))
        found = [answer(block["codes"].astype(np.float32), block["scales"]) for block in blocks]
        scores_N, winner_N = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = np.argsort(-scores_N, kind="stable")[:top]
        return [self._hit(int(numbers[n]), float(scores_N[n]), int(winner_N[n])) for n in best.tolist()]

    def _block(self, rows: NDArray[np.intp]) -> Records:
        """Return some records, of ascending rows; neighbours are not copied."""
        first, last = rows[0], rows[-1]
        return self._records[first : last + 1] if last - first + 1 == len(rows) else self._records[rows]

    def _candidates(self, queries_QE: Floats, top: int) -> NDArray[np.intp]:
        """Return the numbers of the photos to compare: all, or those near the queries and those that came later."""
        if self._neighbours is None or top > MOST_ASKED:
            return np.arange(len(self._rows))
        near = np.zeros(len(self._records), dtype=bool)
        rows = self._neighbours.near(queries_QE, top)
        # A vector index that was built anew meanwhile knows more rows.
        near[rows[rows < len(near)]] = True
        near_N, covered_N = near[self._rows], self._rows < len(self._neighbours)
        # Codes of photos that changed or went may take all the places.
        if near_N.sum() < min(top, covered_N.sum()):
            return np.arange(len(self._rows))
        return np.flatnonzero(near_N | ~covered_N)

    def _hit(self, number: int, score: float, winner: int) -> Hit:
        name, entry = self._photos[number]
        across, down, across_end, down_end = self._records[entry.row]["boxes"][winner].tolist()
        manifest = self._tagger.bundle.manifest
        left, top, right, bottom = crop_box(entry.size, manifest.preprocessing)
        wide, high = (right - left) / manifest.grid[1], (bottom - top) / manifest.grid[0]

        def x(column: int) -> int:
            return round(min(left + (column + manifest.region_shift) * wide, right))

        def y(row: int) -> int:
            return round(min(top + (row + manifest.region_shift) * high, bottom))

        return Hit(name, score, (x(across), y(down), x(across_end), y(down_end)), entry.size)


def _norm(codes: Floats) -> Floats:
    length: Floats = np.linalg.norm(codes, axis=-1)
    return np.maximum(length, np.finfo(np.float32).tiny)
