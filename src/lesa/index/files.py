"""An index of photos' codes as it lies on disk: manifest, journal, records.

An index is a folder. `manifest.json` is the commit point; `photos-00000.jsonl` is a journal, a line for each photo that
was added, failed or went, the last line of a name counts; `codes-00000.i8` holds a record for each added one, in the
journal's order: codes in 8 bits (M x E), a scale a code, and the box of each code's attention in grid coordinates. What
lies beyond the manifest's counts was not committed and is dropped by the next update. `neighbours-00000.faiss` may be
there, too: it finds records by their codes, from which it can be built again; `neighbours` in the manifest says that
the index is to have it.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.bundle import Bundle, Manifest
from lesa.errors import LesaError
from lesa.files import read_format, write_text

FORMAT = "lesa-index-1"
MANIFEST = "manifest.json"
KINDS = ({"photo", "bytes", "mtime_ns", "size"}, {"photo", "failed"}, {"photo", "removed"})
"""Keys of the journal's lines: a photo was added, failed, went."""

Records = NDArray[np.void]


@dataclass(frozen=True)
class Entry:
    """A photo of an index."""

    state: tuple[int, int]
    """Bytes and time of change (ns) of the file that was read."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""
    row: int
    """Which record is its own."""


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return what an index says about itself: `bundle` is its name, `folder` an absolute path.

    Raises:
        LesaError: it is no index, or one of another version.
    """
    path = Path(path) / MANIFEST
    if not path.exists():
        raise LesaError(f"{path.parent} is not an index (no {MANIFEST}): make one with `lesa index`")
    return read_format(path, FORMAT, "index the photos again")


def checked_manifest(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the manifest of an index that was made with this bundle."""
    about = read_manifest(path)
    if about.get("fingerprint") != bundle.fingerprint:
        raise LesaError(
            f"{path} was made with another bundle ({about.get('bundle')}) than {bundle.path}: "
            "give that one, or index the photos again into another folder"
        )
    return about


def write_manifest(path: Path, about: dict[str, Any]) -> None:
    """Commit: write what an index says about itself."""
    # In ASCII: paths may hold bytes that are no text.
    write_text(path / MANIFEST, json.dumps(about, indent=2) + "\n")


def files_of(path: Path, about: dict[str, Any]) -> tuple[Path, Path]:
    """Return the files of codes and of the journal."""
    return path / f"codes-{about['number']:05d}.i8", path / f"photos-{about['number']:05d}.jsonl"


def neighbours_of(path: Path, about: dict[str, Any]) -> Path:
    """Return the file of the vector index, whether it is there or not."""
    return path / f"neighbours-{about['number']:05d}.faiss"


def drop_uncommitted(path: Path, about: dict[str, Any]) -> None:
    """Cut off what lies beyond the manifest's counts, and delete files of another number."""
    current = files_of(path, about)
    for file, size in zip(current, (about["rows"] * about["record"], about["journal"]), strict=True):
        file.touch()
        _refuse_shorter(file, size)
        os.truncate(file, size)
    kept = {*current, neighbours_of(path, about)}
    for file in [*path.glob("codes-*.i8"), *path.glob("photos-*.jsonl"), *path.glob("neighbours-*.faiss")]:
        if file not in kept:
            file.unlink()


def _refuse_shorter(file: Path, size: int) -> None:
    found = file.stat().st_size if file.exists() else 0
    if found < size:
        raise LesaError(f"{file} has {found} bytes, expected {size}: delete {file.parent} and index the photos again")


def replay(path: Path, about: dict[str, Any]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the photos of an index, and those that could not be read with the reason."""
    journal = files_of(path, about)[1]
    _refuse_shorter(journal, about["journal"])
    photos: dict[str, Entry] = {}
    failed: dict[str, str] = {}
    row = 0
    with journal.open("rb") as file:
        lines = file.read(about["journal"]).splitlines()
    for number, line in enumerate(lines, start=1):
        entry = _parsed(line, f"{journal}:{number}")
        name = entry["photo"]
        photos.pop(name, None)
        failed.pop(name, None)
        if "failed" in entry:
            failed[name] = entry["failed"]
        elif "size" in entry:
            photos[name] = Entry((entry["bytes"], entry["mtime_ns"]), (entry["size"][0], entry["size"][1]), row)
            row += 1
    return photos, failed


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict) and entry.keys() in KINDS:
            return entry
    raise LesaError(f"{where} is no line of an index: delete {Path(where).parent} and index the photos again")


def added_line(name: str, state: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return the journal's entry of a photo that was read."""
    return {"photo": name, "bytes": state[0], "mtime_ns": state[1], "size": size}


def failed_line(name: str, reason: str) -> dict[str, Any]:
    """Return the journal's entry of a photo that could not be read."""
    return {"photo": name, "failed": reason}


def record_type(attentions: int, vector_size: int) -> np.dtype[np.void]:
    """Return how a photo's codes, their scales and their boxes are stored."""
    codes, scales = ("codes", "i1", (attentions, vector_size)), ("scales", "<f4", (attentions,))
    return np.dtype([codes, scales, ("boxes", "u1", (attentions, 4))])


def open_records(path: Path, about: dict[str, Any], model: Manifest) -> Records:
    """Map the records into memory.

    Raises:
        LesaError: the file is too short.
    """
    file = files_of(path, about)[0]
    kind = record_type(model.attentions, model.vector_size)
    _refuse_shorter(file, about["rows"] * kind.itemsize)
    return np.memmap(file, kind, mode="r", shape=(about["rows"],))
