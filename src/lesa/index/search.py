"""Searching an index of photos' codes by words or by a photo. A hit has a box. Indexed photos are not read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesa.codes import Box, Floats, select
from lesa.errors import LesaError
from lesa.images import crop_box
from lesa.index.files import Records, checked_manifest, neighbours_of, open_records, replay
from lesa.index.neighbours import MOST_HITS, Neighbours, has_faiss
from lesa.tagger import Tagger

ROWS_AT_ONCE = 32
"""Number of photos per block of floats: with ten codes of 384 numbers a block has 0.5 MB, which fits a cache."""

Answer = Callable[[Floats, Floats], tuple[Floats, NDArray[np.intp]]]
"""8-bit codes as floats (B, M, E) and their scales (B, M) -> scores (B) and the winning codes (B)."""


@dataclass(frozen=True)
class Hit:
    """A photo that a search found, and the place in it."""

    photo: str
    """Its path below the indexed folder."""
    score: float
    """In a search by words: an unbounded margin, like a tag's score. In a search by a photo: -1 to 1."""
    box: Box
    """The place with the greatest attention of the winning code."""
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
            tagger: a tagger of the bundle that the index was made with.
            exact: compare every code, even if there is a vector index.

        Raises:
            LesaError: the folder is not an index, is damaged, contains no photo, or was made with another bundle.
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
        if not exact and (file := neighbours_of(path, manifest)).exists() and has_faiss():
            self._neighbours = Neighbours(file, tagger.bundle.manifest.attentions)

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def compares_all(self) -> bool:
        """Whether a search compares every code; if not, a vector index chooses candidates."""
        return self._neighbours is None

    def find(self, words: str, top: int = 10) -> list[Hit]:
        """Return the photos that fit a word or phrase best, the best one first.

        Raises:
            LesaError: the words have no vector.
        """
        point_E = self._tagger.labels([words]).points_CE[0]

        def answer(codes_BME: Floats, scale_BM: Floats) -> tuple[Floats, NDArray[np.intp]]:
            products_N = codes_BME.reshape(-1, len(point_E)) @ point_E
            by_code_MB = (products_N.reshape(scale_BM.shape) * scale_BM).T
            return select(by_code_MB, self._tagger.bundle.manifest.selection), by_code_MB.argmax(axis=0)

        return self._hits(answer, point_E[None], top)

    def like(self, photo: Path | str, top: int = 10) -> list[Hit]:
        """Return the photos whose codes are most similar to a photo's codes, the most similar one first.

        For each code of one photo its best cosine with the other photo's codes is taken, and these are averaged. The
        score is the mean of this in both directions. A hit's box
        belongs to the code that is nearest to any code of the given photo. An indexed photo also finds itself.

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
        answers = [answer(block["codes"].astype(np.float32), block["scales"]) for block in blocks]
        scores_N, winner_N = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        best = np.argsort(-scores_N, kind="stable")[:top]
        return [self._hit(int(numbers[n]), float(scores_N[n]), int(winner_N[n])) for n in best.tolist()]

    def _block(self, rows: NDArray[np.intp]) -> Records:
        """Return the records of ascending rows; rows without gaps are not copied."""
        first, last = rows[0], rows[-1]
        return self._records[first : last + 1] if last - first + 1 == len(rows) else self._records[rows]

    def _candidates(self, queries_QE: Floats, top: int) -> NDArray[np.intp]:
        """Return the numbers of the photos to compare: all, or the vector index's candidates and all later photos."""
        if self._neighbours is None or top > MOST_HITS:
            return np.arange(len(self._rows))
        near = np.zeros(len(self._records), dtype=bool)
        rows = self._neighbours.near(queries_QE, top)
        # If the vector index was rebuilt meanwhile, it may have rows that the opened records lack.
        near[rows[rows < len(near)]] = True
        near_N, covered_N = near[self._rows], self._rows < len(self._neighbours)
        # If all candidates may be old codes of changed or removed photos, compare all photos.
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
