"""Labels that people gave their photos: a CSV file or JSON Lines, one photo per row.

    photo,labels,split                        {"photo": "a/1.jpg", "labels": ["dog", "park"], "split": "train"}
    a/1.jpg,dog;park,train                    {"photo": "a/2.jpg", "labels": ["cat"], "absent": ["dog"]}
    a/2.jpg,cat;-dog,

* `photo` is a path relative to the photo folder.
* `labels` are the present labels. `-dog` (JSON Lines: `absent`) says that somebody looked and saw no dog.
* A label that a row does not mention is absent. But if any row of the file names absent labels, it is not annotated.
* A label whose name contains `;` or begins with `-` needs JSON Lines.
* `split` is `train`, `validation` or `test`, and may be left out.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lesa.errors import LesaError, did_you_mean

SPLITS = ("train", "validation", "test")
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
    """`train`, `validation` or `test`; empty if it is left out."""


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a `.csv` or `.jsonl` file.

    Raises:
        LesaError: the file cannot be read, a row is malformed, or a photo appears twice.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix not in readers:
        raise LesaError(f"{path} is neither .csv nor .jsonl: write the labels in one of these formats")
    rows: dict[str, Row] = {}
    try:
        for row in readers[path.suffix](path):
            if row.photo in rows:
                raise LesaError(f"{row.where}: photo {row.photo!r} appears twice: put its labels in one row")
            rows[row.photo] = row
    except FileNotFoundError:
        raise LesaError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise LesaError(f"{path} is not a UTF-8 text file: {error}") from None
    return list(rows.values())


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_columns(reader.fieldnames or [], CSV_COLUMNS, f"{path}:1")
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values or None in values.values():
                    raise LesaError(
                        f"{where}: expected {len(reader.fieldnames or ())} columns: put values with commas in quotes"
                    )
                named = [label.strip() for label in values["labels"].split(";") if label.strip()]
                present = [label for label in named if not label.startswith("-")]
                absent = [label[1:].strip() for label in named if label.startswith("-")]
                yield _make_row(values["photo"], present, absent, values.get("split", ""), where)
        except csv.Error as error:
            raise LesaError(f"{path}:{reader.reader.line_num}: {error}: correct the line") from None


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_json_row(line.strip(), f"{path}:{number}")


def _parse_json_row(line: str, where: str) -> Row:
    """Return the row of a line of JSON.

    Raises:
        LesaError: the line is not a JSON object, or its values have wrong types.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise LesaError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise LesaError(f"{where}: expected an object with `photo` and `labels`, found {line[:80]}")
    _check_columns(list(values), JSON_KEYS, where)
    photo, split = values["photo"], values.get("split", "")
    present, absent = values["labels"], values.get("absent", [])
    for key, names in ("labels", present), ("absent", absent):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise LesaError(f"{where}: {key!r} must be a list of strings, found {names!r}")
    if not isinstance(photo, str) or not isinstance(split, str):
        raise LesaError(f"{where}: `photo` and `split` must be strings, found {photo!r} and {split!r}")
    return _make_row(photo, present, absent, split, where)


def _check_columns(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Check the columns of a CSV file or the keys of a JSON object.

    Raises:
        LesaError: one is unknown or appears twice, or `photo` or `labels` is missing.
    """
    for name in names:
        if name not in known:
            raise LesaError(f"{where}: {name!r} is not known here; {did_you_mean(str(name), known)}")
    if len(set(names)) < len(names) or not {"photo", "labels"} <= set(names):
        raise LesaError(f"{where}: expected {', '.join(known)}, each once (the first two are needed), found {names}")


def _make_row(photo: str, present: Sequence[str], absent: Sequence[str], split: str, where: str) -> Row:
    """Return a row after checking its values.

    Raises:
        LesaError: the path leads out of the photo folder, the split is unknown, or a label is present and absent.
    """
    path = PurePosixPath(photo)
    if not photo.strip() or path.is_absolute() or ".." in path.parts:
        raise LesaError(f"{where}: photo {photo!r} must be a path inside the photo folder")
    if split and split not in SPLITS:
        raise LesaError(f"{where}: there is no split {split!r}; {did_you_mean(split, SPLITS)}")
    if both := set(present) & set(absent):
        raise LesaError(f"{where}: label {min(both)!r} is both present and absent: keep one")
    return Row(where, path.as_posix(), frozenset(present), frozenset(absent), split)


def value_of_the_rest(rows: Sequence[Row]) -> int:
    """Return the target of labels that a row does not mention: 0 (not annotated) if a row has absent ones, else -1."""
    return 0 if any(row.absent for row in rows) else -1
