"""An index of photos' codes as it lies on disk: manifest, journal, records.

An index is a folder. `manifest.json` is the commit point. `photos-00000.jsonl` is a journal: one line per photo added,
failed or removed; the last line for a name wins. `codes-00000.i8` holds one record per added photo, in the journal's
order: codes in 8 bits (M x E), one scale per code, and the box of each code's attention in grid coordinates. What lies
beyond the manifest's counts was not committed; the next update drops it. `neighbours-00000.faiss` may be there, too. It
finds records by their codes and can be built again from them; `neighbours` in the manifest says that the index is to
have it.
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
        LesaError: it is not an index, or one of another version.
    """
    path = Path(path) / MANIFEST
    if not path.exists():
        raise LesaError(f"{path.parent} is not an index (no {MANIFEST}): make one with `lesa index`")
    return read_format(path, FORMAT, "index the photos again")


def checked_manifest(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the manifest of an index that was made with this bundle."""
    manifest = read_manifest(path)
    if manifest.get("fingerprint") != bundle.fingerprint:
        raise LesaError(
            f"{path} was made with another bundle ({manifest.get('bundle')}) than {bundle.path}: "
            "give that one, or index the photos again into another folder"
        )
    return manifest


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Commit: write what an index says about itself."""
    # In ASCII: paths may hold bytes that are not text.
    write_text(path / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def files_of(path: Path, manifest: dict[str, Any]) -> tuple[Path, Path]:
    """Return the files of codes and of the journal."""
    return path / f"codes-{manifest['number']:05d}.i8", path / f"photos-{manifest['number']:05d}.jsonl"


def neighbours_of(path: Path, manifest: dict[str, Any]) -> Path:
    """Return the file of the vector index, whether it is there or not."""
    return path / f"neighbours-{manifest['number']:05d}.faiss"


def drop_uncommitted(path: Path, manifest: dict[str, Any]) -> None:
    """Cut off what lies beyond the manifest's counts, and delete files of another number."""
    current = files_of(path, manifest)
    for file, size in zip(current, (manifest["rows"] * manifest["record"], manifest["journal"]), strict=True):
        file.touch()
        _refuse_shorter(file, size)
        os.truncate(file, size)
    kept = {*current, neighbours_of(path, manifest)}
    for file in [*path.glob("codes-*.i8"), *path.glob("photos-*.jsonl"), *path.glob("neighbours-*.faiss")]:
        if file not in kept:
            file.unlink()


def _refuse_shorter(file: Path, size: int) -> None:
    found = file.stat().st_size if file.exists() else 0
    if found < size:
        raise LesaError(f"{file} has {found} bytes, expected {size}: delete {file.parent} and index the photos again")


def replay(path: Path, manifest: dict[str, Any]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the photos of an index, and those that could not be read with the reason."""
    journal = files_of(path, manifest)[1]
    _refuse_shorter(journal, manifest["journal"])
    photos: dict[str, Entry] = {}
    failed: dict[str, str] = {}
    row = 0
    with journal.open("rb") as file:
        lines = file.read(manifest["journal"]).splitlines()
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
    raise LesaError(f"{where} is not a line of an index: delete {Path(where).parent} and index the photos again")


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


def open_records(path: Path, manifest: dict[str, Any], model: Manifest) -> Records:
    """Map the records into memory.

    Raises:
        LesaError: the file is too short.
    """
    file = files_of(path, manifest)[0]
    kind = record_type(model.attentions, model.vector_size)
    _refuse_shorter(file, manifest["rows"] * kind.itemsize)
    return np.memmap(file, kind, mode="r", shape=(manifest["rows"],))
