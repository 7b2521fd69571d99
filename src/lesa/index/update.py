"""Photos -> an index of their codes. An update reads only new and changed photos."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesa.bundle import Bundle
from lesa.codes import Codes, peak_box
from lesa.errors import LesaError
from lesa.files import replacing, write_text
from lesa.images import list_photos
from lesa.index.files import (
    FORMAT,
    MANIFEST,
    Records,
    added_line,
    checked_manifest,
    drop_uncommitted,
    failed_line,
    files_of,
    neighbours_of,
    open_records,
    read_index_manifest,
    record_type,
    replay,
    write_index_manifest,
)
from lesa.index.neighbours import STALE, WORTH_FROM, Neighbours, build_neighbours, has_faiss
from lesa.tagger import Tagger

BLOCK = 256
"""Number of photos between two commits. If the work stops, at most this number is read again."""
STEPS = 127
"""The largest number of a code is scaled to this whole number."""
LARGEST_GRID = 255
"""Greatest number of rows or columns: a grid coordinate is stored in one byte."""

Advance = Callable[[int, int], None]
"""Called with the number of photos done and the number of photos to do."""


@dataclass(frozen=True)
class Changes:
    """The photos of an update, counted."""

    new: int
    """Number of photos that were not in the index."""
    changed: int
    """Number of photos with another size or time of change; they were read again."""
    removed: int
    """Number of photos that no longer exist."""
    unchanged: int
    """Number of photos that were not read."""
    failed: dict[str, str]
    """Photos that cannot be read, and the reasons; the next update tries them again."""


def update_index(path: Path | str, folder: Path | str, tagger: Tagger, progress: Advance | None = None) -> Changes:
    """Make an index of the photos below a folder, or bring it up to date: only new and changed photos are read.

    Args:
        path: the index; an unfinished update continues.
        folder: the folder of the photos. It may have moved: then at least one unchanged photo must be in it.
        tagger: a tagger of the index's bundle.
        progress: called with the number of photos done and to do.

    Raises:
        LesaError: the folder contains no photo, or the index belongs to another bundle or folder, or is damaged.
    """
    folder = Path(folder).absolute()
    states = dict(_states(folder))
    writer = _Writer(Path(path), folder, tagger.bundle)
    before = writer.photos
    todo = [name for name, state in states.items() if name not in before or before[name].state != state]
    if before and Path(writer.manifest["folder"]) != folder and len(todo) == len(states):
        raise LesaError(
            f"{path} is an index of {writer.manifest['folder']}, and no photo of it is in {folder}: give another index "
            "(in a copied folder, photos must keep their name, size and time of change)"
        )
    writer.manifest["folder"] = str(folder)
    removed = [name for name in [*before, *writer.failed] if name not in states]
    for name in removed:
        writer.note({"photo": name, "removed": True})
    failed = {}
    if progress:
        progress(0, len(todo))
    stream = tagger.stream(str(folder / name) for name in todo)
    for done, (name, (_, codes)) in enumerate(zip(todo, stream, strict=True), start=1):
        if isinstance(codes, LesaError):
            failed[name] = str(codes)
            writer.fail(name, str(codes))
        else:
            writer.add(name, states[name], codes)
        if progress:
            progress(done, len(todo))
    writer.commit()
    _compact(Path(path), tagger.bundle)
    changed = sum(name in before for name in todo if name not in failed)
    return Changes(len(todo) - len(failed) - changed, changed, len(removed), len(states) - len(todo), failed)


def wants_neighbours(path: Path | str) -> bool:
    """Whether an index should have a vector index: it is large, or its vector index was built or started before."""
    manifest = read_index_manifest(path)
    # `rows` includes records of changed and removed photos; they are less than half of the records.
    return bool(manifest.get("neighbours")) or manifest["rows"] >= WORTH_FROM


def update_neighbours(path: Path | str, tagger: Tagger, progress: Advance | None = None) -> bool:
    """Build an index's vector index (extra `ann`) unless it is nearly up to date; return whether it was built.

    The manifest notes that the index should have one. Records of changed and removed photos are dropped first.

    Raises:
        LesaError: the index is damaged or belongs to another bundle, or the extra is not installed.
    """
    path, bundle = Path(path), tagger.bundle
    if not has_faiss():
        raise LesaError("a vector index needs Faiss: pip install 'lesa-zsl[ann]'")
    manifest = checked_manifest(path, bundle) | {"neighbours": True}
    write_index_manifest(path, manifest)
    file = neighbours_of(path, manifest)
    covered = len(Neighbours(file, bundle.manifest.attentions)) if file.exists() else 0
    current = sum(entry.row < covered for entry in replay(path, manifest)[0].values())
    if manifest["rows"] - current <= STALE * current:
        return False
    _compact(path, bundle, dead=0)
    manifest = read_index_manifest(path)
    build_neighbours(open_records(path, manifest, bundle.manifest), neighbours_of(path, manifest), progress)
    return True


class _Writer:
    """Adds photos to an index, or makes a new one. Changes become valid with the next commit."""

    def __init__(self, path: Path, folder: Path, bundle: Bundle) -> None:
        if max(bundle.manifest.grid) > LARGEST_GRID:
            raise LesaError(
                f"{bundle.path} has a grid of {bundle.manifest.grid}, an index takes {LARGEST_GRID} at most"
            )
        self._path, self._grid = path, bundle.manifest.grid
        if not (path / MANIFEST).exists():
            _begin(path, folder, bundle)
        self.manifest = checked_manifest(path, bundle) | {"bundle": bundle.name}
        drop_uncommitted(path, self.manifest)
        self.photos, self.failed = replay(path, self.manifest)
        self._lines: list[str] = []
        self._new: list[Records] = []

    def add(self, name: str, state: tuple[int, int], codes: Codes) -> None:
        self._new.append(pack(codes, self._grid))
        self.note(added_line(name, state, codes.size))

    def fail(self, name: str, reason: str) -> None:
        if self.failed.get(name) != reason:
            self.note(failed_line(name, reason))

    def note(self, entry: dict[str, Any]) -> None:
        self._lines.append(json.dumps(entry) + "\n")
        if len(self._lines) >= BLOCK:
            self.commit()

    def commit(self) -> None:
        """Append the collected records and lines to the two files, then write the manifest, which makes them valid."""
        codes, journal = files_of(self._path, self.manifest)
        lines = "".join(self._lines).encode("ascii")
        _append(codes, self.manifest["rows"] * self.manifest["record"], b"".join(row.tobytes() for row in self._new))
        _append(journal, self.manifest["journal"], lines)
        self.manifest["rows"] += len(self._new)
        self.manifest["journal"] += len(lines)
        write_index_manifest(self._path, self.manifest)
        self._lines, self._new = [], []


def pack(codes: Codes, grid: tuple[int, int]) -> Records:
    """Return a photo's record: each code is a scale times whole numbers from -127 to 127."""
    rows, columns = grid
    record = np.zeros((), record_type(*codes.codes_ME.shape))
    scales_M = np.abs(codes.codes_ME).max(axis=1) / STEPS
    record["scales"] = scales_M
    record["codes"] = np.rint(codes.codes_ME / np.maximum(scales_M, np.finfo(np.float32).tiny)[:, None])
    record["boxes"] = [
        # With one pixel per region, the pixels of the box are grid coordinates.
        peak_box(attention_R.reshape(grid), (0, 0, columns, rows))
        for attention_R in codes.attention_MR
    ]
    return record


def _states(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield each photo with its size in bytes and its time of change (ns)."""
    for name in list_photos(folder):
        # A photo may be removed while the folder is listed.
        with suppress(FileNotFoundError):
            stat = (folder / name).stat()
            yield name, (stat.st_size, stat.st_mtime_ns)


def _begin(path: Path, folder: Path, bundle: Bundle) -> None:
    # Hidden files may remain from an interrupted writing of a manifest.
    if path.exists() and (not path.is_dir() or any(not file.name.startswith(".") for file in path.iterdir())):
        raise LesaError(f"{path} is not an index but holds something else: give another folder")
    manifest = bundle.manifest
    made_by = {"bundle": bundle.name, "fingerprint": bundle.fingerprint, "folder": str(folder)}
    shape = {"attentions": manifest.attentions, "code_size": manifest.code_size, "selection": manifest.selection}
    size = record_type(manifest.attentions, manifest.code_size).itemsize
    counts = {"number": 0, "rows": 0, "record": size, "journal": 0}
    write_index_manifest(path, {"format": FORMAT, **made_by, **shape, **counts})


def _append(file: Path, size: int, content: bytes) -> None:
    """Append to a file of the given size; afterwards the bytes are on the disk.

    Raises:
        LesaError: the file has another size: a second program wrote to it.
    """
    with file.open("ab") as end:
        if end.tell() != size:
            raise LesaError(f"{file} was changed meanwhile: let one `lesa index` write it at a time")
        end.write(content)
        end.flush()
        os.fsync(end.fileno())


def _compact(path: Path, bundle: Bundle, dead: float = 0.5) -> None:
    """Rewrite an index if more than this share of its records belongs to changed or removed photos."""
    manifest = read_index_manifest(path)
    photos, failed = replay(path, manifest)
    if manifest["rows"] - len(photos) <= dead * manifest["rows"]:
        return
    new_manifest = manifest | {"number": manifest["number"] + 1, "rows": len(photos)}
    codes, journal = files_of(path, new_manifest)
    records = open_records(path, manifest, bundle.manifest)
    with replacing(codes) as temporary, temporary.open("wb") as file:
        for entry in photos.values():
            file.write(records[entry.row].tobytes())
    lines = [added_line(name, entry.state, entry.size) for name, entry in photos.items()]
    lines += [failed_line(name, reason) for name, reason in failed.items()]
    write_text(journal, "".join(json.dumps(line) + "\n" for line in lines))
    write_index_manifest(path, new_manifest | {"journal": journal.stat().st_size})
    drop_uncommitted(path, read_index_manifest(path))
