"""The vector index of a large index: which photos may answer, without comparing every code (extra `ann`: Faiss).

It holds each code of each record, in the records' order: projected to its 128 main directions, in 8 bits, sorted into
cells around centres. A search looks into the cells next to the query; who asks ranks what it finds by the stored codes.
So it may miss photos but never gives a wrong score. Records that came later are not in it: they are compared one by one
until there are enough to build it anew.
"""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.codes import Floats
from lesa.errors import LesaError
from lesa.files import replacing
from lesa.index.files import Records

WORTH_FROM = 200_000
"""Photos from which it is built without being asked for: comparing all takes half a second and more a query."""
STALE = 0.1
"""It is built anew once what came later, changed or went is more than this share of the photos that it finds."""
DIRECTIONS = 128
SAMPLE = 2_000
"""Photos that the directions are found on."""
TRAINING_CODES = 40
"""Codes a cell that the centres are found on."""
ROUNDS = 10
"""Of k-means."""
LOOKED_INTO = 8
"""A search looks into one of so many cells."""
CODES_A_HIT = 200
"""Codes that are fetched for each photo asked for: a photo has several, and 8 bits of 128 directions rank roughly."""
MOST_ASKED = 100
"""Of more photos than these all codes are compared."""
PHOTOS_AT_ONCE = 4096


class Neighbours:
    """An opened vector index.

    Raises:
        LesaError: it is damaged.
    """

    def __init__(self, file: Path, attentions: int) -> None:
        import faiss

        # Windows maps no files in Faiss.
        flags = 0 if os.name == "nt" else faiss.IO_FLAG_MMAP
        try:
            self._index = faiss.read_index(str(file), flags)
            cells = faiss.extract_index_ivf(self._index).nlist
        except RuntimeError as error:
            raise LesaError(f"{file} is damaged: delete it and run `lesa index` again ({error})") from None
        inner = faiss.SearchParametersIVF(nprobe=max(1, cells // LOOKED_INTO))
        self._how = faiss.SearchParametersPreTransform(index_params=inner)
        self._attentions = attentions

    def __len__(self) -> int:
        """Return how many records it covers, from the first."""
        return int(self._index.ntotal) // self._attentions

    def near(self, queries_QE: Floats, top: int) -> NDArray[np.intp]:
        """Return rows of records that may be among the `top` best for these queries (dot product), ascending."""
        _, codes_QK = self._index.search(np.ascontiguousarray(queries_QE), CODES_A_HIT * top, params=self._how)
        return np.unique(codes_QK[codes_QK >= 0] // self._attentions)


def can_build() -> bool:
    """Whether the extra `ann` is installed."""
    try:
        return find_spec("faiss") is not None
    except ValueError:
        # What was marked as not to be imported has no specification.
        return False


def build_neighbours(records: Records, file: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the vector index of all records; a reader sees the old one or the new one.

    Args:
        records: of the photos' codes.
        file: where it goes.
        progress: is told how many records are in, and how many there are.
    """
    import faiss

    done = 0
    if progress:
        progress(0, len(records))
    index = _trained(records)
    for codes_CE in _blocks(records):
        index.add(codes_CE)
        done = min(done + PHOTOS_AT_ONCE, len(records))
        if progress:
            progress(done, len(records))
    with replacing(file) as temporary:
        faiss.write_index(index, str(temporary))


def _trained(records: Records) -> Any:
    """Return a vector index that knows its directions and centres, and holds no code yet."""
    import faiss

    attentions, vector_size = records["codes"].shape[1:]
    total = len(records) * attentions
    cells = max(1, min(round(2 * np.sqrt(total)), total // TRAINING_CODES))
    random = np.random.default_rng(0)
    size = min(DIRECTIONS, vector_size)
    turn = faiss.LinearTransform(vector_size, size, False)
    directions_DE = _directions(_floats(records[_some(random, len(records), SAMPLE)]), size)
    faiss.copy_array_to_vector(directions_DE.ravel(), turn.A)
    turn.is_trained = True
    centres = faiss.IndexFlatIP(size)
    eight_bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    inner = faiss.IndexIVFScalarQuantizer(centres, size, cells, eight_bits, product)
    inner.cp.niter = ROUNDS
    index = faiss.IndexPreTransform(turn, inner)
    wanted = max(SAMPLE, cells * TRAINING_CODES // attentions)
    index.train(_floats(records[_some(random, len(records), wanted)]))
    return index


def _directions(codes_CE: Floats, size: int) -> Floats:
    """Return the directions along which the codes are longest. Not centred: dot products are to be kept."""
    _, vectors_EE = np.linalg.eigh(codes_CE.T @ codes_CE)
    return np.ascontiguousarray(vectors_EE[:, ::-1][:, :size].T, dtype=np.float32)


def _some(random: np.random.Generator, total: int, wanted: int) -> NDArray[np.intp]:
    return np.sort(random.choice(total, min(total, wanted), replace=False))


def _blocks(records: Records) -> Iterator[Floats]:
    for start in range(0, len(records), PHOTOS_AT_ONCE):
        yield _floats(records[start : start + PHOTOS_AT_ONCE])


def _floats(records: Records) -> Floats:
    """Return all codes of some photos, in a row each."""
    codes_BME: Floats = records["codes"] * records["scales"][:, :, None]
    return codes_BME.reshape(-1, codes_BME.shape[2])
