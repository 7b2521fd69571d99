"""A data set, in memory and as a folder. Every adapter makes one, and every later step reads it.

The folder contains `dataset.json` (vocabulary, photo names of each split, source) and `targets.safetensors`.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.sparse import csr_array

from lesa.annotations import SPLITS as SPLITS
from lesa.errors import LesaError, did_you_mean
from lesa.files import read_format, replacing, sha256, write_json
from lesa.labels import Vocabulary

FORMAT = "lesa-dataset-1"


@dataclass(frozen=True)
class Targets:
    """Targets in {-1 absent, 0 not annotated, +1 present} for N photos and C labels, stored sparse.

    Only the entries that differ from the most common value are stored. With `rest=-1` (tags: all other labels are
    absent) these are the present ones. With `rest=0` (human annotations) these are the present and the absent ones.
    """

    entries: Any
    """scipy.sparse.csr_array of int8, N x C: the stored entries, +1 or (only if rest=0) -1."""
    rest: int
    """The value of all other entries: -1 or 0."""

    @classmethod
    def from_present(cls, present: list[list[int]], labels: int) -> "Targets":
        """Make targets from the columns of each photo's present labels; all other labels are absent."""
        indptr = np.concatenate([[0], np.cumsum([len(columns) for columns in present])]).astype(np.int64)
        columns = np.array([c for row in present for c in sorted(row)], dtype=np.int32)
        values = np.ones(len(columns), dtype=np.int8)
        return cls(csr_array((values, columns, indptr), shape=(len(present), labels)), rest=-1)

    @classmethod
    def from_entries(
        cls,
        photos: NDArray[np.integer[Any]],
        columns: NDArray[np.integer[Any]],
        values: NDArray[np.integer[Any]],
        shape: tuple[int, int],
        rest: int,
    ) -> "Targets":
        """Make targets from entries: `values[i]` (+1 or -1) is at `photos[i], columns[i]`. All others are `rest`.

        No place may appear twice. The entries may be in any order, and there may be many millions of them.
        """
        return cls(csr_array((values.astype(np.int8), (photos, columns)), shape=shape), rest)

    @property
    def shape(self) -> tuple[int, int]:
        """(N photos, C labels)."""
        return int(self.entries.shape[0]), int(self.entries.shape[1])

    def dense(self, rows: Any = slice(None), columns: slice = slice(None)) -> NDArray[np.int8]:
        """Return the chosen rows and columns as a dense int8 array, `rows x columns`."""
        values = self.entries[rows][:, columns].toarray()
        return np.where(values == 0, np.int8(self.rest), values).astype(np.int8)

    def present_per_photo(self, columns: slice = slice(None)) -> float:
        """Return the mean number of present labels per photo among `columns`: the fingerprint of a test set."""
        photos = self.shape[0]
        return float((self.entries[:, columns] > 0).sum() / photos) if photos else 0.0


@dataclass(frozen=True)
class Split:
    """The photos of one split and their targets over the whole vocabulary (unseen columns first)."""

    photos: tuple[str, ...]
    """N photo names: paths relative to the photo folder. The region store uses the same names."""
    targets: Targets

    def without(self, names: Collection[str]) -> "Split":
        """Return the split without these photos."""
        kept = [row for row, photo in enumerate(self.photos) if photo not in names]
        return Split(tuple(self.photos[row] for row in kept), Targets(self.targets.entries[kept], self.targets.rest))


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: `train`, `validation` and `test` splits over one vocabulary."""

    name: str
    vocabulary: Vocabulary
    splits: dict[str, Split]
    source: dict[str, Any]
    """How it was made: adapter, options, and SHA-256 of the files that were read."""

    def split(self, name: str, failed: Collection[str] = ()) -> Split:
        """Return a split without the photos that have no regions (`RegionStore.failed`).

        Raises:
            LesaError: there is no such split, or it contains no photo.
        """
        if name not in self.splits:
            raise LesaError(f"data set {self.name!r} has no split {name!r}; {did_you_mean(name, self.splits)}")
        split = self.splits[name].without(failed)
        if not split.photos:
            raise LesaError(f"split {name!r} of data set {self.name!r} holds no photo: check the list it was made from")
        return split


def match_photos(
    dataset: Dataset,
    folder: Path | str,
    forms: Callable[[str], Sequence[str]] = lambda name: [name],
    keep_missing: bool = False,
) -> Dataset:
    """Return the data set with its photos named by their paths in a folder.

    Photos that are not in the folder are listed in `source["missing_photos"]`. They are left out unless `keep_missing`.

    Args:
        dataset: the data set, with the photo names of its official lists.
        folder: the folder of the photos.
        forms: gives the paths below `folder` that a photo may have, the most likely one first (an adapter's
            function, such as `coco_paths`).
        keep_missing: keep photos that are not in the folder, with the names of the lists.

    Raises:
        LesaError: none of the photos is in the folder, or two of them would be the same file.
    """
    folder = Path(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    missing: list[str] = []
    splits = {}
    for name, split in dataset.splits.items():
        found = [next((form for form in forms(photo) if form in there), None) for photo in split.photos]
        missing += [photo for photo, path in zip(split.photos, found, strict=True) if path is None]
        named = tuple(path or photo for photo, path in zip(split.photos, found, strict=True))
        splits[name] = replace(split, photos=named)
    _refuse_shared_files(dataset, splits)
    total = sum(len(split.photos) for split in splits.values())
    if len(missing) == total:
        form = forms(missing[0])[0] if missing else "none is listed"
        raise LesaError(f"none of the {total} photos is in {folder} (the first would be {form}): give their folder")
    if not keep_missing:
        splits = {name: split.without(frozenset(missing)) for name, split in splits.items()}
    return replace(dataset, splits=splits, source={**dataset.source, "missing_photos": missing})


def _refuse_shared_files(dataset: Dataset, splits: dict[str, Split]) -> None:
    """Refuse two photos of the lists that are the same file: one of them would get the labels of the other."""
    taken: dict[str, str] = {}
    for name, split in splits.items():
        for listed, path in zip(dataset.splits[name].photos, split.photos, strict=True):
            if path in taken:
                raise LesaError(f"photos {taken[path]!r} and {listed!r} are both found as {path}: keep their folders")
            taken[path] = listed


def split_of(name: str) -> str:
    """Return the split of a photo whose collection has no official splits. It depends on the photo's name only.

    So it is the same on every machine and does not change when photos are added: 5 % validation, 55 % train, 40 % test.
    """
    draw = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 1000
    if draw < 50:
        return "validation"
    return "train" if draw < 600 else "test"


def split_from_present(photos: Sequence[str], present: Mapping[str, Collection[str]], vocabulary: Vocabulary) -> Split:
    """Return a split in which all labels that are not present are absent.

    Args:
        photos: the photos of the split.
        present: photo -> its present labels. Labels that are not in the vocabulary are left out.
        vocabulary: the labels of the columns.
    """
    columns = {label: column for column, label in enumerate(vocabulary.names)}
    rows = [[columns[label] for label in present[photo] if label in columns] for photo in photos]
    return Split(tuple(photos), Targets.from_present(rows, len(columns)))


def counts(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return the numbers that identify each split: photos, labels, and present labels per photo (3 decimals)."""
    vocabulary = dataset.vocabulary
    return {
        name: {
            "photos": len(split.photos),
            "seen labels": len(vocabulary.seen),
            "seen present per photo": round(split.targets.present_per_photo(vocabulary.seen_columns), 3),
            "unseen labels": len(vocabulary.unseen),
            "unseen present per photo": round(split.targets.present_per_photo(vocabulary.unseen_columns), 3),
        }
        for name, split in dataset.splits.items()
    }


def write_dataset(dataset: Dataset, folder: Path | str) -> None:
    """Write a data set as a folder. `dataset.json` is written last, so a folder that has it is complete."""
    folder = Path(folder)
    tensors: dict[str, NDArray[Any]] = {}
    for name, split in dataset.splits.items():
        tensors[f"{name}.indptr"] = split.targets.entries.indptr.astype(np.int64)
        tensors[f"{name}.columns"] = split.targets.entries.indices.astype(np.int32)
        tensors[f"{name}.values"] = split.targets.entries.data.astype(np.int8)
    with replacing(folder / "targets.safetensors") as temporary:
        # Not save_file: with it, a full disk is a SafetensorError. The command line reports an OSError.
        temporary.write_bytes(save(tensors))
    write_json(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "targets": sha256(folder / "targets.safetensors"),
            "name": dataset.name,
            "source": dataset.source,
            "rest": {name: split.targets.rest for name, split in dataset.splits.items()},
            "unseen": list(dataset.vocabulary.unseen),
            "seen": list(dataset.vocabulary.seen),
            "photos": {name: list(split.photos) for name, split in dataset.splits.items()},
        },
    )


def read_dataset(folder: Path | str) -> Dataset:
    """Read a data set's folder.

    Raises:
        LesaError: the folder is not a data set, is of another version, or its two files do not belong together.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").exists():
        raise LesaError(f"{folder} is not a prepared data set (no dataset.json): make one with `lesa prepare`")
    manifest = read_format(folder / "dataset.json", FORMAT, "prepare it again")
    try:
        tensors = load_file(folder / "targets.safetensors")
        if manifest["targets"] != sha256(folder / "targets.safetensors"):
            raise ValueError("targets.safetensors is not the file of dataset.json")
        vocabulary = Vocabulary(unseen=tuple(manifest["unseen"]), seen=tuple(manifest["seen"]))
        splits = {}
        for name, photos in manifest["photos"].items():
            parts = tensors[f"{name}.values"], tensors[f"{name}.columns"], tensors[f"{name}.indptr"]
            entries = csr_array(parts, shape=(len(photos), len(vocabulary.names)))
            entries.check_format(full_check=True)
            splits[name] = Split(tuple(photos), Targets(entries, rest=manifest["rest"][name]))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise LesaError(f"{folder} is damaged ({error}): prepare it again") from None
    return Dataset(manifest["name"], vocabulary, splits, manifest["source"])
