"""Own photos with own labels -> a data set.

The labels are a CSV file or JSON Lines, a photo a row:

    photo,labels,split                        {"photo": "a/1.jpg", "labels": ["dog", "park"], "split": "train"}
    a/1.jpg,dog;park,train                    {"photo": "a/2.jpg", "labels": ["cat"], "absent": ["dog"]}
    a/2.jpg,cat;-dog,

* `photo` is a path relative to the photo folder.
* `labels` are the present labels. `-dog` (JSON Lines: `absent`) says that somebody looked and there is no dog.
* A label that is not mentioned is absent; but if any row says `absent` explicitly, it is not annotated: it then takes
  part in neither training nor metrics.
* A label whose name holds a `;` or begins with `-` needs JSON Lines.
* `split` is `train`, `validation` or `test`; where it is left out, it follows from the photo's name (`split_of`).
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import csr_array

from lesa.errors import LesaError, did_you_mean
from lesa.files import read_lines, sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import SPLITS, Dataset, Split, Targets, split_of

CSV_COLUMNS = ("photo", "labels", "split")
JSON_KEYS = ("photo", "labels", "absent", "split")


@dataclass(frozen=True)
class Row:
    """One photo's annotation."""

    where: str
    """`file:line`, for messages."""
    photo: str
    present: frozenset[str]
    absent: frozenset[str]
    split: str


def prepare_folder(photos: Path | str, labels: Path | str, seen: Path | str, unseen: Path | str) -> Dataset:
    """Make a data set from a folder of photos and a file of their labels (this module's first lines show its form).

    Rows of photos that are not in the folder are left out and listed in `source["missing_photos"]`. What rows of
    training photos say about unseen labels stays in the targets; training reads the seen columns only.

    Args:
        photos: Folder of the photos.
        labels: A `.csv` or `.jsonl` file.
        seen: List of the seen labels, one a line, in the order of the columns.
        unseen: List of the unseen labels.

    Raises:
        LesaError: a file cannot be read, a row is malformed, a label is in neither list, or no photo is there.
    """
    photos, labels = Path(photos), Path(labels)
    vocabulary = Vocabulary(unseen=tuple(read_lines(unseen)), seen=tuple(read_lines(seen)))
    if not vocabulary.seen:
        raise LesaError(f"{seen} names no seen label: training needs some, one a line")
    rows = read_rows(labels)
    check_labels(rows, vocabulary)
    there = [row for row in rows if (photos / row.photo).is_file()]
    if not there:
        raise LesaError(f"none of the {len(rows)} photos of {labels} is in {photos}: paths must be relative to it")
    rest = 0 if any(row.absent for row in rows) else -1
    return Dataset(
        name=photos.resolve().name,
        vocabulary=vocabulary,
        splits={split: make_split([row for row in there if row.split == split], vocabulary, rest) for split in SPLITS},
        source={
            "adapter": "folder",
            "missing_photos": sorted({row.photo for row in rows} - {row.photo for row in there}),
            "sha256": {Path(path).name: sha256(path) for path in (labels, seen, unseen)},
        },
    )


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a `.csv` or `.jsonl` file.

    Raises:
        LesaError: the file cannot be read, a row is malformed, or a photo stands twice.
    """
    readers = {".csv": read_csv, ".jsonl": read_json_lines}
    if path.suffix not in readers:
        raise LesaError(f"{path} is neither .csv nor .jsonl: write the labels as one of them")
    rows: dict[str, Row] = {}
    try:
        for row in readers[path.suffix](path):
            if row.photo in rows:
                raise LesaError(f"{row.where}: photo {row.photo!r} stands twice: put its labels in one row")
            rows[row.photo] = row
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise LesaError(f"{path} is not a UTF-8 text file: {error}") from None
    return list(rows.values())


def read_csv(path: Path) -> Iterator[Row]:
    """Yield a CSV file's rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            check_columns(reader.fieldnames or [], CSV_COLUMNS, f"{path}:1")
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values or None in values.values():
                    raise LesaError(
                        f"{where}: expected {len(reader.fieldnames or ())} columns: quote what holds a comma"
                    )
                named = [label.strip() for label in values["labels"].split(";") if label.strip()]
                present = [label for label in named if not label.startswith("-")]
                absent = [label[1:].strip() for label in named if label.startswith("-")]
                yield make_row(values["photo"], present, absent, values.get("split", ""), where)
        except csv.Error as error:
            raise LesaError(f"{path}:{reader.reader.line_num}: {error}: correct the line") from None


def read_json_lines(path: Path) -> Iterator[Row]:
    """Yield a JSON Lines file's rows."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse_json_row(line.strip(), f"{path}:{number}")


def parse_json_row(line: str, where: str) -> Row:
    """Return the row of a JSON object.

    Raises:
        LesaError: it is none, or its values are of other types.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise LesaError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise LesaError(f"{where}: expected an object with `photo` and `labels`, found {line[:80]}")
    check_columns(list(values), JSON_KEYS, where)
    photo, split = values["photo"], values.get("split", "")
    present, absent = values["labels"], values.get("absent", [])
    for key, names in ("labels", present), ("absent", absent):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise LesaError(f"{where}: {key!r} must be a list of strings, found {names!r}")
    if not isinstance(photo, str) or not isinstance(split, str):
        raise LesaError(f"{where}: `photo` and `split` must be strings, found {photo!r} and {split!r}")
    return make_row(photo, present, absent, split, where)


def check_columns(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse columns or keys that would be read as something else, or not at all.

    Raises:
        LesaError: one is unknown or stands twice, or `photo` or `labels` is missing.
    """
    for name in names:
        if name not in known:
            raise LesaError(f"{where}: {name!r} is not known here; {did_you_mean(str(name), known)}")
    if len(set(names)) < len(names) or not {"photo", "labels"} <= set(names):
        raise LesaError(f"{where}: expected {', '.join(known)}, each once (the first two are needed), found {names}")


def make_row(photo: str, present: Sequence[str], absent: Sequence[str], split: str, where: str) -> Row:
    """Return a row whose values make sense.

    Raises:
        LesaError: they do not.
    """
    path = PurePosixPath(photo)
    if not photo.strip() or path.is_absolute() or ".." in path.parts:
        raise LesaError(f"{where}: photo {photo!r} must be a path inside the photo folder")
    if split and split not in SPLITS:
        raise LesaError(f"{where}: there is no split {split!r}; {did_you_mean(split, SPLITS)}")
    if both := set(present) & set(absent):
        raise LesaError(f"{where}: label {min(both)!r} is both present and absent: keep one")
    return Row(where, path.as_posix(), frozenset(present), frozenset(absent), split or split_of(path.as_posix()))


def check_labels(rows: Sequence[Row], vocabulary: Vocabulary) -> None:
    """Refuse labels that are neither seen nor unseen: most are misspelled, and would else be lost.

    Raises:
        LesaError: there is one.
    """
    for row in rows:
        if unknown := (row.present | row.absent).difference(vocabulary.names):
            hint = did_you_mean(min(unknown), vocabulary.names)
            raise LesaError(f"{row.where}: label {min(unknown)!r} is in neither list of labels; {hint}")


def make_split(rows: Sequence[Row], vocabulary: Vocabulary, rest: int) -> Split:
    """Return the photos of a split and their targets; `rest` is the value of labels that a row does not mention."""
    columns = {label: column for column, label in enumerate(vocabulary.names)}
    shape = len(rows), len(columns)
    written = [(n, columns[label], 1) for n, row in enumerate(rows) for label in row.present]
    written += [(n, columns[label], -1) for n, row in enumerate(rows) for label in row.absent]
    photo, column, value = np.array(written, dtype=np.int32).reshape(-1, 3).T
    entries = csr_array((value.astype(np.int8), (photo, column)), shape=shape)
    return Split(tuple(row.photo for row in rows), Targets(entries, rest))
