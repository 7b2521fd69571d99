"""Own photos with own labels (in a file that `lesa.annotations` reads) -> a data set.

Labels that are not annotated are used neither in training nor in metrics. If the file gives no split for a photo, the
split depends on the photo's name (`split_of`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from lesa.annotations import SPLITS, Row, read_rows, value_of_the_rest
from lesa.errors import LesaError, did_you_mean
from lesa.files import read_lines, sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, split_of


def prepare_folder(photos: Path | str, labels: Path | str, seen: Path | str, unseen: Path | str) -> Dataset:
    """Make a data set from a folder of photos and a file of their labels (`lesa.annotations` describes the file).

    Rows of photos that are not in the folder are left out, and `source["missing_photos"]` lists these photos. The
    unseen labels of training photos are kept in the targets; training reads the seen columns only.

    Args:
        photos: Folder of the photos.
        labels: A `.csv` or `.jsonl` file.
        seen: List of the seen labels, one per line, in the order of the columns.
        unseen: List of the unseen labels.

    Raises:
        LesaError: a file cannot be read, a row is malformed, a label is in neither list, or no photo is in the folder.
    """
    photos, labels = Path(photos), Path(labels)
    vocabulary = Vocabulary(unseen=tuple(read_lines(unseen)), seen=tuple(read_lines(seen)))
    if not vocabulary.seen:
        raise LesaError(f"{seen} names no seen label: training needs some, one per line")
    rows = [replace(row, split=row.split or split_of(row.photo)) for row in read_rows(labels)]
    _check_labels(rows, vocabulary)
    there = [row for row in rows if (photos / row.photo).is_file()]
    if not there:
        raise LesaError(f"none of the {len(rows)} photos of {labels} is in {photos}: paths must be relative to it")
    rest = value_of_the_rest(rows)
    return Dataset(
        name=photos.resolve().name,
        vocabulary=vocabulary,
        splits={split: _make_split([row for row in there if row.split == split], vocabulary, rest) for split in SPLITS},
        source={
            "adapter": "folder",
            "missing_photos": sorted({row.photo for row in rows} - {row.photo for row in there}),
            "sha256": {Path(path).name: sha256(path) for path in (labels, seen, unseen)},
        },
    )


def _check_labels(rows: Sequence[Row], vocabulary: Vocabulary) -> None:
    """Refuse labels that are neither seen nor unseen. Most of them are misspelled, and they would be lost."""
    for row in rows:
        if unknown := (row.present | row.absent).difference(vocabulary.names):
            hint = did_you_mean(min(unknown), vocabulary.names)
            raise LesaError(f"{row.where}: label {min(unknown)!r} is in neither list of labels; {hint}")


def _make_split(rows: Sequence[Row], vocabulary: Vocabulary, rest: int) -> Split:
    """Return the photos of a split and their targets. `rest` is the value of labels that a row does not mention."""
    columns = {label: column for column, label in enumerate(vocabulary.names)}
    shape = len(rows), len(columns)
    written = [(n, columns[label], 1) for n, row in enumerate(rows) for label in row.present]
    written += [(n, columns[label], -1) for n, row in enumerate(rows) for label in row.absent]
    photo, column, value = np.array(written, dtype=np.int32).reshape(-1, 3).T
    entries = csr_array((value.astype(np.int8), (photo, column)), shape=shape)
    return Split(tuple(row.photo for row in rows), Targets(entries, rest))
