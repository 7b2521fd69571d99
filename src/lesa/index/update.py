"""Photos -> an index of their codes, kept up to date: no photo is read twice."""

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
    read_manifest,
    record_type,
    replay,
    write_manifest,
)
from lesa.index.neighbours import STALE, WORTH_FROM, Neighbours, build_neighbours, can_build
from lesa.tagger import Tagger

BLOCK = 256
"""Photos between two commits: at most so many are read again when the work stops."""
STEPS = 127
"""A code's largest number becomes this one."""
LARGEST_GRID = 255
"""Grid coordinates are stored in a byte."""

Advance = Callable[[int, int], None]
"""Takes how many photos are done, and how many there are to do."""


@dataclass(frozen=True)
class Changes:
    """What an update found."""

    new: int
    """Photos that the index did not hold."""
    changed: int
    """Photos whose size or time of change is another; they were read again."""
    removed: int
    """Photos that are no longer there."""
    unchanged: int
    """Photos that were not read."""
    failed: dict[str, str]
    """Photos that cannot be read, and why; the next update tries them again."""


def update_index(path: Path | str, folder: Path | str, tagger: Tagger, progress: Advance | None = None) -> Changes:
    """Make an index of the photos below a folder, or bring it up to date: only new and changed photos are read.

    Args:
        path: the index; work that stopped is gone on with.
        folder: the photos. One that moved is taken at its new place if an unchanged photo of the index is in it.
        tagger: of the index's bundle.
        progress: is told how far the work is.

    Raises:
        LesaError: the folder holds no photo, or the index is of another bundle, of another folder, or damaged.
    """
    folder = Path(folder).absolute()
    states = dict(_states(folder))
    writer = _Writer(Path(path), folder, tagger.bundle)
    before = writer.photos
    todo = [name for name, state in states.items() if name not in before or before[name].state != state]
    if before and Path(writer.manifest["folder"]) != folder and len(todo) == len(states):
        raise LesaError(
            f"{path} is of {writer.manifest['folder']}, and no photo of it is in {folder}: give another index "
            "(of a copied folder, a photo's name, size and time of change must be as they were)"
        )
    writer.manifest["folder"] = str(folder)
    gone = [name for name in [*before, *writer.failed] if name not in states]
    for name in gone:
        writer.note({"photo": name, "removed": True})
    failed = {}
    if progress:
        progress(0, len(todo))
    found = tagger.stream(str(folder / name) for name in todo)
    for done, (name, (_, codes)) in enumerate(zip(todo, found, strict=True), start=1):
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
    return Changes(len(todo) - len(failed) - changed, changed, len(gone), len(states) - len(todo), failed)


def wants_neighbours(path: Path | str) -> bool:
    """Whether an index is to have a vector index: it is large, or one was built or begun once."""
    manifest = read_manifest(path)
    # Records of photos that changed or went count, too: less than half of them are such.
    return bool(manifest.get("neighbours")) or manifest["rows"] >= WORTH_FROM


def update_neighbours(path: Path | str, tagger: Tagger, progress: Advance | None = None) -> bool:
    """Build an index's vector index (extra `ann`) unless it is nearly up to date; return whether it was built.

    The index remembers that it is to have one. What photos left that changed or went is dropped before.

    Raises:
        LesaError: the index is damaged or of another bundle, or the extra is not installed.
    """
    path, bundle = Path(path), tagger.bundle
    if not can_build():
        raise LesaError("a vector index needs Faiss: pip install 'lesa-zsl[ann]'")
    manifest = checked_manifest(path, bundle) | {"neighbours": True}
    write_manifest(path, manifest)
    file = neighbours_of(path, manifest)
    covered = len(Neighbours(file, bundle.manifest.attentions)) if file.exists() else 0
    good = sum(entry.row < covered for entry in replay(path, manifest)[0].values())
    if manifest["rows"] - good <= STALE * good:
        return False
    _compact(path, bundle, dead=0)
    manifest = read_manifest(path)
    build_neighbours(open_records(path, manifest, bundle.manifest), neighbours_of(path, manifest), progress)
    return True


class _Writer:
    """Adds to an index, or begins one. What is noted counts once it is committed."""

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
        """Append what was gathered to the two files; the manifest, replaced last, makes it count."""
        codes, journal = files_of(self._path, self.manifest)
        lines = "".join(self._lines).encode("ascii")
        _append(codes, self.manifest["rows"] * self.manifest["record"], b"".join(row.tobytes() for row in self._new))
        _append(journal, self.manifest["journal"], lines)
        self.manifest["rows"] += len(self._new)
        self.manifest["journal"] += len(lines)
        write_manifest(self._path, self.manifest)
        self._lines, self._new = [], []


def pack(codes: Codes, grid: tuple[int, int]) -> Records:
    """Return a photo's record: each code is its scale times whole numbers from -127 to 127."""
    rows, columns = grid
    record = np.zeros((), record_type(*codes.codes_ME.shape))
    scales_M = np.abs(codes.codes_ME).max(axis=1) / STEPS
    record["scales"] = scales_M
    record["codes"] = np.rint(codes.codes_ME / np.maximum(scales_M, np.finfo(np.float32).tiny)[:, None])
    record["boxes"] = [
        # In a photo of a pixel a region, pixels are grid coordinates.
        peak_box(attention_R.reshape(grid), (0, 0, columns, rows))
        for attention_R in codes.attention_MR
    ]
    return record


def _states(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield each photo with what changes when it does: bytes and time of change."""
    for name in list_photos(folder):
        # One that goes meanwhile is not a photo of the folder.
        with suppress(FileNotFoundError):
            stat = (folder / name).stat()
            yield name, (stat.st_size, stat.st_mtime_ns)


def _begin(path: Path, folder: Path, bundle: Bundle) -> None:
    # Hidden files may be left of a manifest whose writing was stopped.
    if path.exists() and (not path.is_dir() or any(not file.name.startswith(".") for file in path.iterdir())):
        raise LesaError(f"{path} is not an index but holds something else: give another folder")
    manifest = bundle.manifest
    made_by = {"bundle": bundle.name, "fingerprint": bundle.fingerprint, "folder": str(folder)}
    shape = {"attentions": manifest.attentions, "vector_size": manifest.vector_size, "selection": manifest.selection}
    size = record_type(manifest.attentions, manifest.vector_size).itemsize
    counts = {"number": 0, "rows": 0, "record": size, "journal": 0}
    write_manifest(path, {"format": FORMAT, **made_by, **shape, **counts})


def _append(file: Path, size: int, content: bytes) -> None:
    """Append to a file of the given size; the bytes are on the disk afterwards."""
    with file.open("ab") as end:
        if end.tell() != size:
            raise LesaError(f"{file} was changed meanwhile: let one `lesa index` write it at a time")
        end.write(content)
        end.flush()
        os.fsync(end.fileno())


def _compact(path: Path, bundle: Bundle, dead: float = 0.5) -> None:
    """Write an index anew if more than this share of its records belong to photos that changed or went."""
    manifest = read_manifest(path)
    photos, failed = replay(path, manifest)
    if manifest["rows"] - len(photos) <= dead * manifest["rows"]:
        return
    anew = manifest | {"number": manifest["number"] + 1, "rows": len(photos)}
    codes, journal = files_of(path, anew)
    records = open_records(path, manifest, bundle.manifest)
    with replacing(codes) as temporary, temporary.open("wb") as file:
        for entry in photos.values():
            file.write(records[entry.row].tobytes())
    lines = [added_line(name, entry.state, entry.size) for name, entry in photos.items()]
    lines += [failed_line(name, reason) for name, reason in failed.items()]
    write_text(journal, "".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(path, anew | {"journal": journal.stat().st_size})
    drop_uncommitted(path, read_manifest(path))
