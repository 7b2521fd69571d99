"""The region store: the regions of photos on the disk, written shard by shard, resumed, read by memory map.

A store is a folder. `manifest.json` describes its rows and is the commit point: anything beyond its counts was not
committed, and resuming removes it. `names.txt` has the name of each row, one per line. `failed.jsonl` lists photos that
could not be read. `shard-00000.f16` and so on are raw numbers in little-endian half precision, R x D per row.
"""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError
from lesa.files import read_format, write_json
from lesa.learn.regions.classes import Classes, read_classes

FORMAT = "lesa-regions-1"
DTYPE = np.dtype("<f2")
PHOTOS_PER_SHARD = 1024
PART = "shard.part"
"""The file of the shard that is being written."""


class RegionStore:
    """A finished store, opened for reading: one row per photo, with R x D features in half precision."""

    def __init__(self, folder: Path, manifest: dict[str, Any], names: Sequence[str]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.names = tuple(names)
        self.grid: tuple[int, int] = (manifest["grid"][0], manifest["grid"][1])
        self.size: int = manifest["size"]
        self._rows = {name: row for row, name in enumerate(self.names)}
        self._starts = np.cumsum([0, *manifest["shards"]])
        self._shards = [self._map(i, rows) for i, rows in enumerate(manifest["shards"])]

    @classmethod
    def open(cls, folder: Path | str) -> "RegionStore":
        """Open a store.

        Raises:
            LesaError: the folder is not a store, has another version, or is unfinished, empty or damaged.
        """
        folder = Path(folder)
        manifest = read_store_manifest(folder)
        if not manifest["complete"]:
            raise LesaError(f"{folder} is not finished ({manifest['rows']} photos so far): run the same command again")
        if not manifest["rows"]:
            raise LesaError(f"{folder} holds no photo: {folder / 'failed.jsonl'} says why")
        names = _read_names(folder)
        if len(names) != manifest["rows"]:
            raise LesaError(f"{folder / 'names.txt'} has {len(names)} names for {manifest['rows']} rows: extract again")
        return cls(folder, manifest, names)

    def _map(self, number: int, rows: int) -> NDArray[np.float16]:
        path = self.folder / _shard_name(number)
        shape = (rows, self.grid[0] * self.grid[1], self.size)
        expected = int(np.prod(shape)) * DTYPE.itemsize
        actual = path.stat().st_size if path.exists() else 0
        if actual != expected:
            raise LesaError(f"{path} has {actual} bytes, expected {expected}: delete {self.folder} and extract again")
        return np.memmap(path, dtype=DTYPE, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of the named photos.

        Raises:
            LesaError: photos are not in the store; the message names the first ones.
        """
        missing = [name for name in names if name not in self._rows]
        if missing:
            raise LesaError(self._missing_message(missing))
        return np.array([self._rows[name] for name in names], dtype=np.int64)

    def _missing_message(self, missing: Sequence[str]) -> str:
        reasons = self.failed()
        first = ", ".join(name + (f" ({reasons[name]})" if name in reasons else "") for name in missing[:3])
        return (
            f"{len(missing)} photos are not in {self.folder}, first {first}: "
            "extract the folder that holds them, or leave them out of the data set"
        )

    def failed(self) -> dict[str, str]:
        """Return the photos that could not be read, and the reasons."""
        return dict(read_failed(self.folder))

    def classes(self) -> Classes | str:
        """Return the classes that the backbone knows by name, in the space of the regions, or the reason for none.

        Raises:
            LesaError: their file does not exist, was changed, or does not fit the store.
        """
        classes = read_classes(self.folder, self.manifest.get("classes") or {})
        if isinstance(classes, Classes) and classes.rows_KD.shape[1] != self.size:
            raise LesaError(
                f"{self.folder} has classes of {classes.rows_KD.shape[1]} features for regions of {self.size}: "
                "extract again"
            )
        return classes

    def read(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float32]:
        """Read the regions of these rows, in this order: float32 `B, R, D`.

        Raises:
            IndexError: a row is outside the store.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a store of {len(self)}")
        regions_BRD = np.empty((len(rows), self.grid[0] * self.grid[1], self.size), dtype=np.float32)
        shard_B = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shard_B):
            here = shard_B == shard
            regions_BRD[here] = self._shards[shard][rows[here] - self._starts[shard]]
        return regions_BRD


def read_store_manifest(folder: Path | str) -> dict[str, Any]:
    """Read the manifest of a store, finished or not.

    Raises:
        LesaError: the folder is not a store, or has another version.
    """
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise LesaError(f"{folder} is not a region store (no manifest.json): make one with `lesa extract`")
    return read_format(path, FORMAT, "extract again")


def _read_names(folder: Path) -> list[str]:
    """Return the names of a store's rows. Only line feeds separate them: names may contain any other character."""
    return (folder / "names.txt").read_bytes().decode().split("\n")[:-1]


def read_failed(folder: Path) -> list[tuple[str, str]]:
    """Return the names and reasons of a store's failed photos."""
    lines = (folder / "failed.jsonl").read_text(encoding="utf-8").splitlines()
    return [(entry["name"], entry["reason"]) for entry in map(json.loads, lines)]


def _clipped(value: Any, limit: int = 300) -> str:
    """Return a value as a message shows it: the names of a thousand classes would be longer than a screen."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.f16"


class StoreWriter:
    """Writes a new store, or continues one. A shard becomes valid when the manifest names it.

    After every 1,024 photos a shard is committed, so at most this number is lost when the work stops. Used in a `with`
    block, it finishes the store at the end of the block, and leaves it unfinished after an error.

    Args:
        folder: the store.
        manifest: the description of the rows: `backbone`, `preprocessing`, `grid`, `size`, `projection`,
            `classes`.

    Raises:
        LesaError: the folder has a store with another description, or other files with the names of a store's files.
    """

    def __init__(self, folder: Path | str, manifest: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manifest = self._begin(manifest)
        self._drop_uncommitted()
        self._done = {*_read_names(self.folder), *(name for name, _ in read_failed(self.folder))}
        self._names: list[str] = []
        self._failed: list[dict[str, str]] = []
        self._part: IO[bytes] | None = None

    def _begin(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        # JSON turns tuples into lists, so that they compare equal to those of the file.
        fixed: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **manifest, "dtype": "float16"}))
        if not (self.folder / "manifest.json").exists():
            self._refuse_other_files()
            counts = {"rows": 0, "failed": 0, "names_bytes": 0, "failed_bytes": 0, "shards": [], "complete": False}
            new = fixed | {"photos_per_shard": PHOTOS_PER_SHARD} | counts
            # From now on the folder is a store, even if the work stops at once.
            write_json(self.folder / "manifest.json", new)
            return new
        existing = read_store_manifest(self.folder)
        for key, value in fixed.items():
            if existing.get(key) != value:
                given, there = _clipped(value), _clipped(existing.get(key))
                raise LesaError(f"{self.folder} holds regions with {key} {there}, not {given}: give another folder")
        return existing

    def _refuse_other_files(self) -> None:
        others = [name for name in ("names.txt", "failed.jsonl", _shard_name(0)) if (self.folder / name).exists()]
        if others:
            raise LesaError(f"{self.folder} is not a region store but holds {', '.join(others)}: give another folder")

    def _drop_uncommitted(self) -> None:
        for file_name, size in (
            ("names.txt", self._manifest["names_bytes"]),
            ("failed.jsonl", self._manifest["failed_bytes"]),
        ):
            path = self.folder / file_name
            path.touch()
            if path.stat().st_size < size:
                raise LesaError(f"{path} is shorter than {size} bytes: delete {self.folder} and extract again")
            os.truncate(path, size)
        for number in itertools.count(len(self._manifest["shards"])):
            path = self.folder / _shard_name(number)
            if not path.exists():
                break
            path.unlink()

    @property
    def rows(self) -> int:
        """Number of photos written so far, including uncommitted ones."""
        return int(self._manifest["rows"]) + len(self._names)

    @property
    def failures(self) -> int:
        """Number of photos that could not be read so far."""
        return int(self._manifest["failed"]) + len(self._failed)

    def __contains__(self, name: str) -> bool:
        """Whether the photo was done before: its regions are committed, or it could not be read."""
        return name in self._done

    def append(self, names: Sequence[str], regions_BRD: NDArray[np.float32]) -> None:
        """Add photos with their regions.

        Raises:
            LesaError: a feature is not finite or too large for half precision.
        """
        for name, regions_RD in zip(names, regions_BRD, strict=True):
            # Not `>`: NaN must not pass.
            if not np.abs(regions_RD).max() <= np.finfo(DTYPE).max:
                raise LesaError(f"{name}: a feature is not finite or above 65504, which half precision cannot hold")
            if self._part is None:
                self._part = (self.folder / PART).open("wb")
            self._part.write(regions_RD.astype(DTYPE).data)
            self._names.append(name)
            if len(self._names) == self._manifest["photos_per_shard"]:
                self.commit()

    def fail(self, name: str, reason: str) -> None:
        """Note that a photo could not be read."""
        self._failed.append({"name": name, "reason": reason})

    def commit(self, *, complete: bool = False) -> None:
        """Write everything since the last commit to the disk; the manifest comes last.

        Args:
            complete: whether the store is finished.
        """
        manifest = self._manifest
        if self._part is not None:
            _sync(self._part)
            self._part.close()
            (self.folder / PART).replace(self.folder / _shard_name(len(manifest["shards"])))
            manifest["shards"].append(len(self._names))
            self._part = None
        manifest["names_bytes"] = self._extend("names.txt", self._names)
        manifest["failed_bytes"] = self._extend("failed.jsonl", [json.dumps(entry) for entry in self._failed])
        manifest["rows"], manifest["failed"] = self.rows, self.failures
        manifest["complete"] = complete
        write_json(self.folder / "manifest.json", manifest)
        self._names.clear()
        self._failed.clear()

    def _extend(self, file_name: str, lines: Sequence[str]) -> int:
        """Append lines to a file and return its size."""
        with (self.folder / file_name).open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            _sync(file)
            return file.tell()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit(complete=True)
        elif self._part is not None:
            self._part.close()
            (self.folder / PART).unlink()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
