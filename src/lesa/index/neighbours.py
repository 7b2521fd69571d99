"""The vector index of a large index: it finds candidates without comparing every code (extra `ann`: Faiss).

It contains each code of each record, in the records' order: projected to the 128 main directions, in 8 bits, sorted
into cells around centres. A search looks into the cells nearest to the query. The caller then ranks the candidates by
the stored codes. So a search may miss photos but never returns a wrong score. Later records are not in the vector
index: they are compared one by one until there are enough of them to rebuild it.
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
"""From this number of photos on it is built without a request: comparing all takes half a second or more per query."""
STALE = 0.1
"""It is rebuilt when new, changed and removed photos exceed this share of the photos that it finds."""
DIRECTIONS = 128
"""Number of main directions that codes are projected to."""
SAMPLE = 2_000
"""Number of photos that the directions are computed from."""
TRAINING_CODES = 40
"""Number of codes per cell that the centres are computed from."""
ROUNDS = 10
"""Number of rounds of k-means."""
SEARCHED_CELLS = 8
"""A search looks into one eighth of the cells."""
CODES_PER_HIT = 200
"""Number of codes to fetch per wanted photo: a photo has several codes, and 8 bits of 128 directions are inexact."""
MOST_HITS = 100
"""If more photos are wanted, all codes are compared."""
PHOTOS_AT_ONCE = 4096
"""Number of photos whose codes are added together."""


class Neighbours:
    """An opened vector index.

    Raises:
        LesaError: it is damaged.
    """

    def __init__(self, file: Path, attentions: int) -> None:
        import faiss

        # On Windows Faiss cannot map files into memory.
        flags = 0 if os.name == "nt" else faiss.IO_FLAG_MMAP
        try:
            self._index = faiss.read_index(str(file), flags)
            cells = faiss.extract_index_ivf(self._index).nlist
        except RuntimeError as error:
            raise LesaError(f"{file} is damaged: delete it and run `lesa index` again ({error})") from None
        inner = faiss.SearchParametersIVF(nprobe=max(1, cells // SEARCHED_CELLS))
        self._parameters = faiss.SearchParametersPreTransform(index_params=inner)
        self._attentions = attentions

    def __len__(self) -> int:
        """Return the number of records that it covers, counted from the first record."""
        return int(self._index.ntotal) // self._attentions

    def near(self, queries_QE: Floats, top: int) -> NDArray[np.intp]:
        """Return the numbers of records that may be among the `top` best for these queries (by dot product), ascending.

        Args:
            queries_QE: Q query vectors.
            top: number of wanted photos.
        """
        _, codes_QK = self._index.search(np.ascontiguousarray(queries_QE), CODES_PER_HIT * top, params=self._parameters)
        return np.unique(codes_QK[codes_QK >= 0] // self._attentions)


def has_faiss() -> bool:
    """Whether the extra `ann` is installed."""
    try:
        return find_spec("faiss") is not None
    except ValueError:
        # A module that is blocked in `sys.modules` has no specification.
        return False


def build_neighbours(records: Records, file: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the vector index of all records; a reader sees the old one or the new one.

    Args:
        records: the records of the index.
        file: the file to write.
        progress: called with the number of records done and the number of all records.
    """
    import faiss

    done = 0
    if progress:
        progress(0, len(records))
    index = _train(records)
    for codes_CE in _blocks(records):
        index.add(codes_CE)
        done = min(done + PHOTOS_AT_ONCE, len(records))
        if progress:
            progress(done, len(records))
    with replacing(file) as temporary:
        faiss.write_index(index, str(temporary))


def _train(records: Records) -> Any:
    """Return a vector index with its directions and centres, but without codes."""
    import faiss

    attentions, code_size = records["codes"].shape[1:]
    total = len(records) * attentions
    cells = max(1, min(round(2 * np.sqrt(total)), total // TRAINING_CODES))
    random = np.random.default_rng(0)
    size = min(DIRECTIONS, code_size)
    turn = faiss.LinearTransform(code_size, size, False)
    directions_DE = _directions(_floats(records[_sample(random, len(records), SAMPLE)]), size)
    faiss.copy_array_to_vector(directions_DE.ravel(), turn.A)
    turn.is_trained = True
    centres = faiss.IndexFlatIP(size)
    eight_bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    inner = faiss.IndexIVFScalarQuantizer(centres, size, cells, eight_bits, product)
    inner.cp.niter = ROUNDS
    index = faiss.IndexPreTransform(turn, inner)
    wanted = max(SAMPLE, cells * TRAINING_CODES // attentions)
    index.train(_floats(records[_sample(random, len(records), wanted)]))
    return index


def _directions(codes_CE: Floats, size: int) -> Floats:
    """Return the main directions of the codes, `size, E`. The codes are not centred, so that dot products stay."""
    _, vectors_EE = np.linalg.eigh(codes_CE.T @ codes_CE)
    return np.ascontiguousarray(vectors_EE[:, ::-1][:, :size].T, dtype=np.float32)


def _sample(random: np.random.Generator, total: int, wanted: int) -> NDArray[np.intp]:
    return np.sort(random.choice(total, min(total, wanted), replace=False))


def _blocks(records: Records) -> Iterator[Floats]:
    for start in range(0, len(records), PHOTOS_AT_ONCE):
        yield _floats(records[start : start + PHOTOS_AT_ONCE])


def _floats(records: Records) -> Floats:
    """Return all codes of these photos, one row per code."""
    codes_BME: Floats = records["codes"] * records["scales"][:, :, None]
    return codes_BME.reshape(-1, codes_BME.shape[2])
