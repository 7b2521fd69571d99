"""The large CSV files of Open Images, read once in chunks and kept as arrays."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lesa.errors import LesaError
from lesa.files import replacing, sha256

Tensors = dict[str, NDArray[Any]]
Counts = dict[str, Any]
"""Values of a file that are not arrays, such as its number of lines."""
Parser = Callable[[Path, Callable[[int], None]], tuple[Tensors, Counts]]
FORMAT = "lesa-open-images-2"
COLUMNS = ["ImageID", "Source", "LabelName", "Confidence"]


# The later versions write 1 as well as 1.0.
PRESENT = {"1": True, "1.0": True, "0": False, "0.0": False}
CHUNK = 20_000


@dataclass(frozen=True)
class Annotations:
    """The annotations of one split. Each pair of photo and label appears once."""

    images: NDArray[np.uint64]
    """The numbers of the annotated photos (their names are 16 hexadecimal digits), ascending."""
    photos: NDArray[np.int32]
    """Each annotation's place in `images`, ascending."""
    labels: NDArray[np.int32]
    """Each annotation's place in `mids`."""
    present: NDArray[np.bool_]
    mids: list[str]
    lines: int
    """Number of lines in the file."""
    repeated: int
    """Number of lines that repeat another line."""
    contradictory: int
    """Number of lines with "absent" where another line has "present"."""
    sha256: str

    def line_counts(self) -> dict[str, int]:
        """Return the numbers of lines by their use."""
        return {"lines": self.lines, "repeated": self.repeated, "contradictory": self.contradictory}

    def photos_by_label(self) -> dict[str, int]:
        """Return the number of photos on which each label is annotated, as present or as absent."""
        return dict(zip(self.mids, np.bincount(self.labels, minlength=len(self.mids)).tolist(), strict=True))


def read_large(
    parsers: dict[Path, Parser], work: Path, progress: Callable[[int, int], None]
) -> dict[Path, dict[str, Any]]:
    """Read each file with its parser, or its kept arrays. `progress` gets the bytes done and the bytes of all files."""
    sizes = [path.stat().st_size for path in parsers]
    large: dict[Path, dict[str, Any]] = {}

    def advance(read: int) -> None:
        progress(sum(sizes[: len(large)]) + read, sum(sizes))

    for path, parse in parsers.items():
        large[path] = _kept_or_parsed(path, work, parse, advance)
        advance(0)
    return large


def _kept_or_parsed(path: Path, work: Path, parse: Parser, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return the result of `parse` for a file. It is kept in `work` and used until the file's size or time changes."""
    kept = work / f"{path.name}.safetensors"
    key = f"{FORMAT} {path.stat().st_size} {path.stat().st_mtime_ns}"
    # If the kept file does not exist or is not complete, the official file is read.
    with suppress(OSError, SafetensorError), safe_open(kept, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("key") == key:
            return {**json.loads(metadata["counts"]), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
    tensors, counts = parse(path, progress)
    counts["sha256"] = sha256(path)
    with replacing(kept) as temporary:
        temporary.write_bytes(save(tensors, {"key": key, "counts": json.dumps(counts)}))
    return {**counts, **tensors}


def parse_annotations(path: Path, progress: Callable[[int], None]) -> tuple[Tensors, Counts]:
    """Read the annotations of a file. Each pair of photo and label appears once.

    Raises:
        LesaError: a line is not `ImageID,Source,LabelName,Confidence` (16 hexadecimal digits; confidence 0 or 1).
    """
    codes: dict[str, int] = {}
    parts = [(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.bool_))]
    for rows in chunks(path, COLUMNS, progress):
        try:
            images, _, mids, confidences = zip(*rows, strict=True)
            labels = np.array([codes.setdefault(mid, len(codes)) for mid in mids], np.int32)
            present = np.array([PRESENT[confidence] for confidence in confidences])
            parts.append((_image_numbers(images), labels, present))
        except (ValueError, KeyError):
            raise _malformed(path) from None
    lines = sum(len(part[0]) for part in parts)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    parts.clear()
    tensors, counts = _merged(columns[0], columns[1], columns[2], len(codes))
    return tensors, {"mids": list(codes), "lines": lines, **counts}


def _merged(
    images: NDArray[np.uint64], labels: NDArray[np.int32], present: NDArray[np.bool_], label_count: int
) -> tuple[Tensors, Counts]:
    """Merge the lines of one photo and label, and count them.

    Photo, label and value of a line become one number. After sorting, equal lines are neighbours and "present" is last.
    """
    distinct, photos = np.unique(images, return_inverse=True)
    lines = (photos * label_count + labels) * 2 + present
    del photos
    lines.sort()
    says_new = np.diff(lines, append=-1) != 0
    lines = lines[says_new]
    is_last = np.diff(lines >> 1, append=-1) != 0
    counts = {"repeated": int((~says_new).sum()), "contradictory": int((~is_last).sum())}
    lines = lines[is_last]
    places, codes = np.divmod(lines >> 1, max(label_count, 1))
    tensors = {"images": distinct, "photos": places.astype(np.int32), "labels": codes.astype(np.int32)}
    return {**tensors, "present": (lines & 1).astype(np.bool_)}, counts


def parse_image_list(path: Path, progress: Callable[[int], None]) -> tuple[Tensors, Counts]:
    """Read the numbers of the photos in an image list, in ascending order.

    Raises:
        LesaError: a line does not start with 16 hexadecimal digits.
    """
    parts = [np.empty(0, np.uint64)]
    for rows in chunks(path, COLUMNS[:1], progress):
        try:
            parts.append(_image_numbers([row[0] for row in rows]))
        except ValueError:
            raise _malformed(path, COLUMNS[:1]) from None
    return {"images": np.unique(np.concatenate(parts))}, {}


def _image_numbers(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return the names of photos, 16 hexadecimal digits each, as numbers.

    Raises:
        ValueError: a name is not such a number.
    """
    numbers = np.frombuffer(bytes.fromhex("".join(names)), ">u8")
    if len(numbers) != len(names) or any(len(name) != 16 for name in names):
        raise ValueError("not 16 hexadecimal digits")
    return numbers.astype(np.uint64)


def chunks(path: Path, header: list[str], progress: Callable[[int], None]) -> Iterator[list[list[str]]]:
    """Yield the rows of a CSV file, many at a time, without empty ones. `progress` gets the number of bytes read.

    Raises:
        LesaError: the file is not CSV text, or its first line does not start with `header`.
    """
    with path.open("rb") as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        try:
            if next(reader, [])[: len(header)] != header:
                raise LesaError(f"{path}:1: expected the header `{','.join(header)}`: is it the file of that name?")
            filled = (row for row in reader if row)
            while rows := list(islice(filled, CHUNK)):
                yield rows
                progress(file.tell())
        except UnicodeDecodeError as error:
            raise LesaError(f"{path} is not a text file in UTF-8 ({error}): get it again") from None
        except csv.Error as error:
            raise LesaError(f"{path}:{reader.line_num}: not a CSV file in UTF-8 ({error}): get it again") from None


def _malformed(path: Path, header: list[str] = COLUMNS) -> LesaError:
    """Return the error that names the first malformed line of a file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        row = next(row for row in reader if row and not _is_well_formed(row, header))
        found = ",".join(row)[:80]
        line = reader.line_num
    expected = (
        "`ImageID,Source,LabelName,Confidence` with confidence 0 or 1" if header == COLUMNS else "an ImageID first"
    )
    return LesaError(
        f"{path}:{line}: expected {expected} (ImageID: 16 hexadecimal digits), found {found!r}: get the file again"
    )


def _is_well_formed(row: list[str], header: list[str]) -> bool:
    try:
        _image_numbers(row[:1])
    except ValueError:
        return False
    return header != COLUMNS or (len(row) == len(COLUMNS) and row[3] in PRESENT)
