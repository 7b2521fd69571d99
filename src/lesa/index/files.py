"""An index of photos' codes on the disk: manifest, journal, records.

An index is a folder. `manifest.json` is the commit point: other files' bytes beyond its counts were not committed, and
the next update removes them. `photos-00000.jsonl` is a journal: one line per photo added, failed or removed; the last
line for a name wins. `codes-00000.i8` has one record per added photo, in the journal's order: codes in 8 bits (M x E),
one scale per code, and the box of each code's attention in grid coordinates. `neighbours-00000.faiss` is optional. It
finds records by their codes and can be rebuilt from them; `neighbours` in the manifest is true if the index should have
it.
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
"""Keys of the journal's three kinds of lines: a photo was added, failed, or was removed."""

Records = NDArray[np.void]


@dataclass(frozen=True)
class IndexedPhoto:
    """A photo of an index."""

    state: tuple[int, int]
    """Size in bytes and time of change (ns) of the file when it was read."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""
    row: int
    """The number of its record."""


def read_index_manifest(path: Path | str) -> dict[str, Any]:
    """Return the manifest of an index; its `bundle` is a name, its `folder` an absolute path.

    Raises:
        LesaError: the folder is not an index, or has another version.
    """
    path = Path(path) / MANIFEST
    if not path.exists():
        raise LesaError(f"{path.parent} is not an index (no {MANIFEST}): make one with `lesa index`")
    return read_format(path, FORMAT, "index the photos again")


def checked_manifest(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the manifest of an index that was made with this bundle.

    Raises:
        LesaError: the folder is not an index, or was made with another bundle.
    """
    manifest = read_index_manifest(path)
    if manifest.get("fingerprint") != bundle.fingerprint:
        raise LesaError(
            f"{path} was made with another bundle ({manifest.get('bundle')}) than {bundle.path}: "
            "give that bundle, or index the photos again into another folder"
        )
    return manifest


def write_index_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest; this commits the changes of the other files."""
    # In ASCII: paths may contain bytes that are not text.
    write_text(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def files_of(path: Path, manifest: dict[str, Any]) -> tuple[Path, Path]:
    """Return the paths of the codes and of the journal."""
    return path / f"codes-{manifest['number']:05d}.i8", path / f"photos-{manifest['number']:05d}.jsonl"


def neighbours_of(path: Path, manifest: dict[str, Any]) -> Path:
    """Return the path of the vector index, whether it exists or not."""
    return path / f"neighbours-{manifest['number']:05d}.faiss"


def drop_uncommitted(path: Path, manifest: dict[str, Any]) -> None:
    """Remove bytes beyond the manifest's counts, and delete files with another number.

    Raises:
        LesaError: a file is shorter than the manifest says.
    """
    current = files_of(path, manifest)
    for file, size in zip(current, (manifest["rows"] * manifest["record"], manifest["journal"]), strict=True):
        file.touch()
        _refuse_shorter(file, size)
        os.truncate(file, size)
    in_use = {*current, neighbours_of(path, manifest)}
    for file in [*path.glob("codes-*.i8"), *path.glob("photos-*.jsonl"), *path.glob("neighbours-*.faiss")]:
        if file not in in_use:
            file.unlink()


def _refuse_shorter(file: Path, size: int) -> None:
    actual = file.stat().st_size if file.exists() else 0
    if actual < size:
        raise LesaError(f"{file} has {actual} bytes, expected {size}: delete {file.parent} and index the photos again")


def replay(path: Path, manifest: dict[str, Any]) -> tuple[dict[str, IndexedPhoto], dict[str, str]]:
    """Return the photos of an index, and the reasons of the photos that could not be read.

    Raises:
        LesaError: the journal is too short or damaged.
    """
    journal = files_of(path, manifest)[1]
    _refuse_shorter(journal, manifest["journal"])
    photos: dict[str, IndexedPhoto] = {}
    failed: dict[str, str] = {}
    row = 0
    with journal.open("rb") as file:
        lines = file.read(manifest["journal"]).splitlines()
    for number, line in enumerate(lines, start=1):
        entry = _parse_line(line, f"{journal}:{number}")
        name = entry["photo"]
        photos.pop(name, None)
        failed.pop(name, None)
        if "failed" in entry:
            failed[name] = entry["failed"]
        elif "size" in entry:
            photos[name] = IndexedPhoto((entry["bytes"], entry["mtime_ns"]), (entry["size"][0], entry["size"][1]), row)
            row += 1
    return photos, failed


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict) and entry.keys() in KINDS:
            return entry
    raise LesaError(f"{where} is not a line of an index: delete {Path(where).parent} and index the photos again")


def added_line(name: str, state: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return the journal's line for a photo that was read."""
    return {"photo": name, "bytes": state[0], "mtime_ns": state[1], "size": size}


def failed_line(name: str, reason: str) -> dict[str, Any]:
    """Return the journal's line for a photo that could not be read."""
    return {"photo": name, "failed": reason}


def record_type(attentions: int, code_size: int) -> np.dtype[np.void]:
    """Return the NumPy type of a record: a photo's codes, their scales and their boxes."""
    codes, scales = ("codes", "i1", (attentions, code_size)), ("scales", "<f4", (attentions,))
    return np.dtype([codes, scales, ("boxes", "u1", (attentions, 4))])


def open_records(path: Path, manifest: dict[str, Any], model: Manifest) -> Records:
    """Map the records into memory.

    Raises:
        LesaError: the file is too short.
    """
    file = files_of(path, manifest)[0]
    kind = record_type(model.attentions, model.code_size)
    _refuse_shorter(file, manifest["rows"] * kind.itemsize)
    return np.memmap(file, kind, mode="r", shape=(manifest["rows"],))
