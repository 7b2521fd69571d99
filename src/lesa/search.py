"""An index of photos' codes: words in, photos out, with the place in each; no photo is read again.

An index is a folder. `manifest.json` is the commit point; `photos-00000.jsonl` is a journal, a line for each photo that
was added, failed or went, the last line of a name counts; `codes-00000.i8` holds a record for each added one, in the
journal's order: codes in 8 bits (M x E), a scale a code, and the box of each code's attention in grid coordinates. What
lies beyond the manifest's counts was not committed and is dropped by the next update.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.bundle import Bundle, Manifest
from lesa.errors import LesaError
from lesa.files import read_format, replacing, write_text
from lesa.images import list_photos, seen_box
from lesa.tagger import Box, Codes, Floats, Tagger, hot_box, select

FORMAT = "lesa-index-1"
MANIFEST = "manifest.json"
BLOCK = 256
"""Photos between two commits: at most so many are read again when the work stops."""
ROWS_AT_ONCE = 256
"""Photos whose codes are made into floats together: 3 MB with ten codes of 300 numbers, which a cache holds."""
STEPS = 127
"""A code's largest number becomes this one."""
LARGEST_GRID = 255
"""Grid coordinates are stored in a byte."""

KINDS = ({"photo", "bytes", "mtime_ns", "size"}, {"photo", "failed"}, {"photo", "removed"})
"""Keys of the journal's lines: a photo was added, failed, went."""

Records = NDArray[np.void]
Answer = Callable[[Floats, Floats], tuple[Floats, NDArray[np.intp]]]
"""8-bit codes as floats (B, M, E) and their scales (B, M) -> scores (B) and the winning codes (B)."""
Advance = Callable[[int, int], None]
"""Takes how many photos are done, and how many there are to do."""


@dataclass(frozen=True)
class Entry:
    """A photo of an index."""

    state: tuple[int, int]
    """Bytes and time of change (ns) of the file that was read."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""
    row: int
    """Which record is its own."""


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


@dataclass(frozen=True)
class Hit:
    """A photo that was found, and the place in it."""

    photo: str
    """Its path below the indexed folder."""
    score: float
    """By words: an unbounded margin, as a tag's. By a photo: -1 to 1."""
    box: Box
    """The place that the winning code looked at most."""
    size: tuple[int, int]
    """The upright photo's width and height in pixels."""


class Index:
    """An index, opened for searching.

    Example:
        index = Index("photos.index", Tagger("mine.lesa"))
        for hit in index.find("red car", top=3):
            print(hit.photo, hit.score, hit.box)
    """

    def __init__(self, path: Path | str, tagger: Tagger) -> None:
        """Open an index.

        Args:
            path: the folder that `update_index` wrote.
            tagger: of the bundle that it was made with.

        Raises:
            LesaError: it is no index, is damaged, holds no photo, or was made with another bundle.
        """
        path = Path(path)
        about = _checked(path, tagger.bundle)
        self.folder = Path(about["folder"])
        self._tagger = tagger
        photos, self.failed = _replay(path, about)
        if not photos:
            raise LesaError(f"{path} holds no photo: index a folder whose photos can be read")
        self._photos = list(photos.items())
        self._rows = np.array([entry.row for entry in photos.values()])
        self._records = _records(path, about, tagger.bundle.about)

    def __len__(self) -> int:
        return len(self._photos)

    def find(self, words: str, top: int = 10) -> list[Hit]:
        """Return the photos that answer a word or phrase best, the best first.

        Raises:
            LesaError: there is no vector for the words.
        """
        vector_E = self._tagger.labels([words]).vectors_CE[0]

        def answer(codes_BME: Floats, scale_BM: Floats) -> tuple[Floats, NDArray[np.intp]]:
            products_N = codes_BME.reshape(-1, len(vector_E)) @ vector_E
            by_code_MB = (products_N.reshape(scale_BM.shape) * scale_BM).T
            return select(by_code_MB, self._tagger.bundle.about.selection), by_code_MB.argmax(axis=0)

        return self._hits(answer, top)

    def like(self, photo: Path | str, top: int = 10) -> list[Hit]:
        """Return the photos whose codes are most alike to a photo's, the most alike first; it finds itself if indexed.

        Each code of either photo is compared with the other photo's nearest code: the score is the mean of these
        cosines over the one photo's codes and over the other's, and the mean of the two. A hit's box belongs to the
        code that is nearest to any of the given photo's.

        Raises:
            LesaError: the photo cannot be read.
        """
        codes_ME = self._tagger.codes(photo).codes_ME
        given_EM = (codes_ME / _norm(codes_ME)[:, None]).T

        def answer(codes_BME: Floats, scale_BM: Floats) -> tuple[Floats, NDArray[np.intp]]:
            products_BMM = (codes_BME.reshape(-1, len(given_EM)) @ given_EM).reshape(*scale_BM.shape, -1)
            cosines_BMM = products_BMM / _norm(codes_BME)[:, :, None]
            nearest_BM = cosines_BMM.max(axis=2)
            alike_B = (nearest_BM.mean(axis=1) + cosines_BMM.max(axis=1).mean(axis=1)) / 2
            return alike_B, nearest_BM.argmax(axis=1)

        return self._hits(answer, top)

    def _hits(self, answer: Answer, top: int) -> list[Hit]:
        found = [self._answered(answer, start) for start in range(0, len(self._records), ROWS_AT_ONCE)]
        # Rows of photos that changed or went are answered along and left out here.
        scores_N, winner_N = (np.concatenate(parts)[self._rows] for parts in zip(*found, strict=True))
        best = np.argsort(-scores_N, kind="stable")[:top]
        return [self._hit(n, float(scores_N[n]), int(winner_N[n])) for n in best.tolist()]

    def _answered(self, answer: Answer, start: int) -> tuple[Floats, NDArray[np.intp]]:
        block = self._records[start : start + ROWS_AT_ONCE]
        return answer(block["codes"].astype(np.float32), block["scales"])

    def _hit(self, number: int, score: float, winner: int) -> Hit:
        name, entry = self._photos[number]
        across, down, across_end, down_end = self._records[entry.row]["boxes"][winner].tolist()
        about = self._tagger.bundle.about
        left, top, right, bottom = seen_box(entry.size, about.preprocessing)
        wide, high = (right - left) / about.grid[1], (bottom - top) / about.grid[0]
        box = left + across * wide, top + down * high, left + across_end * wide, top + down_end * high
        return Hit(name, score, (round(box[0]), round(box[1]), round(box[2]), round(box[3])), entry.size)


def update_index(path: Path | str, folder: Path | str, tagger: Tagger, progress: Advance | None = None) -> Changes:
    """Make an index of the photos below a folder, or bring it up to date: only new and changed photos are read.

    Args:
        path: the index; work that stopped is gone on with.
        folder: the photos. One that moved is taken at its new place if a photo of the index is in it.
        tagger: of the index's bundle.
        progress: is told how far the work is.

    Raises:
        LesaError: the folder holds no photo, or the index is of another bundle, of another folder, or damaged.
    """
    folder = Path(folder).absolute()
    states = dict(_states(folder))
    writer = _Writer(Path(path), folder, tagger.bundle)
    before = writer.photos
    if before and Path(writer.about["folder"]) != folder and not states.keys() & before.keys():
        raise LesaError(f"{path} is of {writer.about['folder']}, and no photo of it is in {folder}: give another index")
    writer.about["folder"] = str(folder)
    gone = [name for name in [*before, *writer.failed] if name not in states]
    for name in gone:
        writer.note({"photo": name, "removed": True})
    todo = [name for name, state in states.items() if name not in before or before[name].state != state]
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


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return what an index says about itself: `bundle` and `folder` are absolute paths.

    Raises:
        LesaError: it is no index, or one of another version.
    """
    path = Path(path) / MANIFEST
    if not path.exists():
        raise LesaError(f"{path.parent} is not an index (no {MANIFEST}): make one with `lesa index`")
    return read_format(path, FORMAT, "index the photos again")


class _Writer:
    """Adds to an index, or begins one. What is noted counts once it is committed."""

    def __init__(self, path: Path, folder: Path, bundle: Bundle) -> None:
        if max(bundle.about.grid) > LARGEST_GRID:
            raise LesaError(f"{bundle.path} has a grid of {bundle.about.grid}, an index takes {LARGEST_GRID} at most")
        self._path, self._grid = path, bundle.about.grid
        if not (path / MANIFEST).exists():
            _begin(path, folder, bundle)
        self.about = _checked(path, bundle) | {"bundle": str(bundle.path.absolute())}
        _drop_uncommitted(path, self.about)
        self.photos, self.failed = _replay(path, self.about)
        self._lines: list[str] = []
        self._new: list[Records] = []

    def add(self, name: str, state: tuple[int, int], codes: Codes) -> None:
        self._new.append(pack(codes, self._grid))
        self.note(_added(name, state, codes.size))

    def fail(self, name: str, reason: str) -> None:
        if self.failed.get(name) != reason:
            self.note(_failed(name, reason))

    def note(self, entry: dict[str, Any]) -> None:
        self._lines.append(json.dumps(entry) + "\n")
        if len(self._lines) >= BLOCK:
            self.commit()

    def commit(self) -> None:
        """Append what was gathered to the two files; the manifest, replaced last, makes it count."""
        codes, journal = _files(self._path, self.about)
        lines = "".join(self._lines).encode("ascii")
        _append(codes, self.about["rows"] * self.about["record"], b"".join(row.tobytes() for row in self._new))
        _append(journal, self.about["journal"], lines)
        self.about["rows"] += len(self._new)
        self.about["journal"] += len(lines)
        _write_manifest(self._path, self.about)
        self._lines, self._new = [], []


def pack(codes: Codes, grid: tuple[int, int]) -> Records:
    """Return a photo's record: each code is its scale times whole numbers from -127 to 127."""
    rows, columns = grid
    record = np.zeros((), _record_type(*codes.codes_ME.shape))
    scales_M = np.abs(codes.codes_ME).max(axis=1) / STEPS
    record["scales"] = scales_M
    record["codes"] = np.rint(codes.codes_ME / np.maximum(scales_M, np.finfo(np.float32).tiny)[:, None])
    record["boxes"] = [
        # In a photo of a pixel a region, pixels are grid coordinates.
        hot_box(attention_R.reshape(grid), (0, 0, columns, rows))
        for attention_R in codes.attention_MR
    ]
    return record


def _record_type(attentions: int, vector_size: int) -> np.dtype[np.void]:
    codes, scales = ("codes", "i1", (attentions, vector_size)), ("scales", "<f4", (attentions,))
    return np.dtype([codes, scales, ("boxes", "u1", (attentions, 4))])


def _norm(codes: Floats) -> Floats:
    length: Floats = np.linalg.norm(codes, axis=-1)
    return np.maximum(length, np.finfo(np.float32).tiny)


def _states(folder: Path) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield each photo with what changes when it does: bytes and time of change."""
    for name in list_photos(folder):
        # One that goes meanwhile is no photo of the folder.
        with suppress(FileNotFoundError):
            about = (folder / name).stat()
            yield name, (about.st_size, about.st_mtime_ns)


def _begin(path: Path, folder: Path, bundle: Bundle) -> None:
    # Hidden files may be left of a manifest whose writing was stopped.
    if path.exists() and (not path.is_dir() or any(not file.name.startswith(".") for file in path.iterdir())):
        raise LesaError(f"{path} is no index but holds something else: give another folder")
    about = bundle.about
    made_by = {"bundle": str(bundle.path.absolute()), "fingerprint": bundle.fingerprint, "folder": str(folder)}
    shape = {"attentions": about.attentions, "vector_size": about.vector_size, "selection": about.selection}
    size = _record_type(about.attentions, about.vector_size).itemsize
    counts = {"number": 0, "rows": 0, "record": size, "journal": 0}
    _write_manifest(path, {"format": FORMAT, **made_by, **shape, **counts})


def _write_manifest(path: Path, about: dict[str, Any]) -> None:
    # In ASCII: paths may hold bytes that are no text.
    write_text(path / MANIFEST, json.dumps(about, indent=2) + "\n")


def _checked(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return the manifest of an index that was made with this bundle."""
    about = read_manifest(path)
    if about.get("fingerprint") != bundle.fingerprint:
        raise LesaError(
            f"{path} was made with another bundle ({about.get('bundle')}) than {bundle.path}: "
            "give that one, or index the photos again into another folder"
        )
    return about


def _files(path: Path, about: dict[str, Any]) -> tuple[Path, Path]:
    """Return the files of codes and of the journal."""
    return path / f"codes-{about['number']:05d}.i8", path / f"photos-{about['number']:05d}.jsonl"


def _drop_uncommitted(path: Path, about: dict[str, Any]) -> None:
    current = _files(path, about)
    for file, size in zip(current, (about["rows"] * about["record"], about["journal"]), strict=True):
        file.touch()
        _refuse_shorter(file, size)
        os.truncate(file, size)
    for file in [*path.glob("codes-*.i8"), *path.glob("photos-*.jsonl")]:
        if file not in current:
            file.unlink()


def _refuse_shorter(file: Path, size: int) -> None:
    found = file.stat().st_size if file.exists() else 0
    if found < size:
        raise LesaError(f"{file} has {found} bytes, expected {size}: delete {file.parent} and index the photos again")


def _append(file: Path, size: int, content: bytes) -> None:
    """Append to a file of the given size; the bytes are on the disk afterwards."""
    with file.open("ab") as end:
        if end.tell() != size:
            raise LesaError(f"{file} was changed meanwhile: let one `lesa index` write it at a time")
        end.write(content)
        end.flush()
        os.fsync(end.fileno())


def _replay(path: Path, about: dict[str, Any]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the photos of an index, and those that could not be read with the reason."""
    journal = _files(path, about)[1]
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


def _added(name: str, state: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    return {"photo": name, "bytes": state[0], "mtime_ns": state[1], "size": size}


def _failed(name: str, reason: str) -> dict[str, Any]:
    return {"photo": name, "failed": reason}


def _records(path: Path, about: dict[str, Any], model: Manifest) -> Records:
    file = _files(path, about)[0]
    kind = _record_type(model.attentions, model.vector_size)
    _refuse_shorter(file, about["rows"] * kind.itemsize)
    return np.memmap(file, kind, mode="r", shape=(about["rows"],))


def _compact(path: Path, bundle: Bundle) -> None:
    """Write an index anew if more than half of its records belong to photos that changed or went."""
    about = read_manifest(path)
    photos, failed = _replay(path, about)
    if about["rows"] <= 2 * len(photos):
        return
    anew = about | {"number": about["number"] + 1, "rows": len(photos)}
    codes, journal = _files(path, anew)
    records = _records(path, about, bundle.about)
    with replacing(codes) as temporary, temporary.open("wb") as file:
        for entry in photos.values():
            file.write(records[entry.row].tobytes())
    lines = [_added(name, entry.state, entry.size) for name, entry in photos.items()]
    lines += [_failed(name, reason) for name, reason in failed.items()]
    write_text(journal, "".join(json.dumps(line) + "\n" for line in lines))
    _write_manifest(path, anew | {"journal": journal.stat().st_size})
    _drop_uncommitted(path, read_manifest(path))
