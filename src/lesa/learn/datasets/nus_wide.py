"""NUS-WIDE's official text files -> a data set: 1,000 noisy user tags, 81 concepts that people labelled.

The rules:

* `standard`: the unseen labels are the 81 concepts (human labels). The seen labels are the tags that are not concepts
  (925 of 1,000).
* `clean`: as `standard`, but without the 30 seen labels that are the singular or plural of a concept.
* `multi-label`: the 81 concepts are the seen labels, and no label is unseen. Photos without any label are left out.
* Validation is the first 5,000 photos of the training list, train the other ones. Test is the test list.
* All other labels of a photo are absent.

The files are lists (one name per line, CRLF, photos as `actor\\0001_2124494179.jpg`), and zeros and ones in the order
of `Imagelist.txt`: for the tags 1,000 per line (each with a tab behind it), for each concept a file with one per line.
Other copies than the official one are accepted; `source["differences"]` has one sentence for each different count.
"""

from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError, did_you_mean
from lesa.files import numbered_lines, sha256
from lesa.labels import Vocabulary, are_twins
from lesa.learn.datasets.dataset import Dataset, Split, Targets
from lesa.learn.datasets.official_files import SourceFile, require_files

KINDS = ("standard", "clean", "multi-label")
PAGE = "lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
PHOTO_LIST = SourceFile(
    "ImageList/Imagelist.txt", f"ImageList.zip, {PAGE}", ("ImageList/ImageList.txt", "Imagelist.txt", "ImageList.txt")
)
TRAIN_LIST = SourceFile("ImageList/TrainImagelist.txt", f"ImageList.zip, {PAGE}", ("TrainImagelist.txt",))
TEST_LIST = SourceFile("ImageList/TestImagelist.txt", f"ImageList.zip, {PAGE}", ("TestImagelist.txt",))
CONCEPT_LIST = SourceFile("ConceptsList/Concepts81.txt", f"ConceptsList.zip, {PAGE}", ("Concepts81.txt",))
LABELS = SourceFile("Groundtruth/AllLabels", f"Groundtruth.zip, {PAGE}", ("AllLabels", "ImageList/AllLabels"))
TAG_LIST = SourceFile("NUS_WID_Tags/TagList1k.txt", f"NUS_WID_Tags.zip, {PAGE}", ("TagList1k.txt",))
ALL_TAGS = SourceFile("NUS_WID_Tags/AllTags1k.txt", f"NUS_WID_Tags.zip, {PAGE}", ("AllTags1k.txt",))
MULTI_LABEL_FILES = (PHOTO_LIST, TRAIN_LIST, TEST_LIST, CONCEPT_LIST, LABELS)
FILES = (*MULTI_LABEL_FILES, TAG_LIST, ALL_TAGS)

VALIDATION = 5000
OFFICIAL = {
    "photos": 269_648,
    "training photos": 161_789,
    "test photos": 107_859,
    "validation photos": VALIDATION,
    "concepts": 81,
    "tags": 1000,
    "tags that are not concepts": 925,
    "concepts that are not tags": 6,
}
# Number of lines of the tags' file that become one array.
BLOCK = 1024
ONE = ord("1")

Names = dict[str, str]
"""The names of a list, in order -> `file:line`, for messages."""
Present = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows (photos, in the order of `Imagelist.txt`) and columns (of the vocabulary) of the present labels."""


class Lists(NamedTuple):
    """The five lists. No list contains a name twice."""

    photos: Names
    train: Names
    test: Names
    concepts: Names
    tags: Names
    """Empty if the tags are not used."""


def prepare_nus_wide(root: Path | str, kind: str = "standard") -> Dataset:
    """Make a data set from NUS-WIDE's official files by the rules at the top of this module.

    Args:
        root: The folder into which the official archives were unpacked.
        kind: `standard`, `clean` or `multi-label` (which needs no tags).

    Raises:
        LesaError: a file is missing, or it is unclear which photo a label belongs to.
    """
    if kind not in KINDS:
        raise LesaError(f"NUS-WIDE is not prepared as {kind!r}; {did_you_mean(kind, KINDS)}")
    root = Path(root)
    files = MULTI_LABEL_FILES if kind == "multi-label" else FILES
    paths = dict(zip(files, require_files(root, files), strict=True))
    lists = _read_lists(paths)
    human = [SourceFile(f"Labels_{name}.txt", LABELS.distributed) for name in lists.concepts]
    label_files = require_files(paths[LABELS], human)
    twins = _find_twins(lists) if kind == "clean" else []
    vocabulary = _make_vocabulary(lists, twins)
    present = [_read_concepts(label_files, len(lists.photos))]
    if lists.tags:
        present.append(_read_tags(paths[ALL_TAGS], lists, vocabulary))
    splits = _make_splits(lists, present, vocabulary)
    texts = [path for path in (*paths.values(), *label_files) if path.is_file()]
    source = {
        "adapter": "nus-wide",
        "kind": kind,
        "twins_left_out": twins,
        "differences": _differences(lists, splits),
        "sha256": {path.relative_to(root).as_posix(): sha256(path) for path in texts},
    }
    dataset = Dataset("nus-wide" if kind == "standard" else f"nus-wide-{kind}", vocabulary, splits, source)
    return _without_unlabelled(dataset) if kind == "multi-label" else dataset


def nus_wide_paths(name: str) -> list[str]:
    """Return the two paths that a photo may have: in the folder of its query, and in one folder with all photos."""
    return [name, PurePosixPath(name).name]


def _find_twins(lists: Lists) -> list[str]:
    """Return the tags that are not a concept but the singular or plural of one."""
    return [
        tag
        for tag in lists.tags
        if tag not in lists.concepts and any(are_twins(tag, concept) for concept in lists.concepts)
    ]


def _make_vocabulary(lists: Lists, left_out: list[str]) -> Vocabulary:
    """Return the labels. Without tags the concepts are seen; with tags they are unseen, and the other tags are seen."""
    concepts = tuple(lists.concepts)
    if not lists.tags:
        return Vocabulary(unseen=(), seen=concepts)
    seen = tuple(tag for tag in lists.tags if tag not in lists.concepts and tag not in left_out)
    return Vocabulary(unseen=concepts, seen=seen)


# lists


def _read_lists(paths: dict[SourceFile, Path]) -> Lists:
    """Read the lists, and refuse photos with unclear labels or an unclear split.

    Raises:
        LesaError: a name appears twice, or a photo of a split is not in the list of photos or is in both splits.
    """
    photos, train, test = (read_photos(paths[file]) for file in (PHOTO_LIST, TRAIN_LIST, TEST_LIST))
    tags = _read_names(paths[TAG_LIST]) if TAG_LIST in paths else {}
    for split in train, test:
        for name, where in split.items():
            if name not in photos:
                raise LesaError(
                    f"{where}: {name} is not in {paths[PHOTO_LIST]}: take both lists from the same ImageList.zip"
                )
    for name in train:
        if name in test:
            raise LesaError(f"{test[name]}: {name} is also a training photo ({train[name]}): keep one of the lines")
    return Lists(photos, train, test, _read_names(paths[CONCEPT_LIST]), tags)


def _read_names(path: Path) -> Names:
    """Read a list of names. Backslashes become slashes.

    Raises:
        LesaError: the file is not text, it contains no name, or a name appears twice.
    """
    names: Names = {}
    for where, line in numbered_lines(path):
        name = line.strip().replace("\\", "/")
        if name in names:
            raise LesaError(
                f"{where}: {name!r} appears twice, first in {names[name]}: keep the line of the official list"
            )
        names[name] = where
    if not names:
        raise LesaError(f"{path} is empty: unpack it again")
    return names


def read_photos(path: Path) -> Names:
    """Read a list of photos.

    Raises:
        LesaError: the file is not text, it contains no photo, a photo appears twice, or it is not a path inside the
            folder of the photos.
    """
    photos = _read_names(path)
    for name, where in photos.items():
        if name.startswith("/") or ":" in name or ".." in name.split("/"):
            raise LesaError(f"{where}: expected a photo such as `actor\\0001_2124494179.jpg`, found {name!r}")
    return photos


# zeros and ones


def _read_digits(text: bytes, count: int) -> bytes | None:
    """Return the `count` zeros and ones of a text, without the blanks between them; None for any other text."""
    cells = text.split()
    digits = b"".join(cells)
    if len(cells) != count or len(digits) != count or digits.translate(None, b"01"):
        return None
    return digits


def _read_concepts(paths: list[Path], photos: int) -> Present:
    """Read the files of the concepts. The column of a concept is its place in the list.

    Raises:
        LesaError: a file does not contain a 0 or a 1 for each photo.
    """
    rows = []
    for path in paths:
        digits = _read_digits(path.read_bytes(), photos)
        if digits is None:
            raise LesaError(_wrong_labels(path, photos))
        rows.append(np.flatnonzero(np.frombuffer(digits, dtype=np.uint8) == ONE))
    return np.concatenate(rows), np.repeat(np.arange(len(paths)), [len(row) for row in rows])


def _wrong_labels(path: Path, photos: int) -> str:
    """Return the message that names the error in a concept's file."""
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        if line.split() not in ([b"0"], [b"1"], []):
            return f"{path}:{number}: expected 0 or 1, found {line[:80]!r}: unpack Groundtruth.zip again"
    return (
        f"{path}:{len(lines)}: expected {photos:,} lines, one for each photo of Imagelist.txt, found "
        f"{sum(bool(line.strip()) for line in lines):,}: take both from the official archives"
    )


def _read_tags(path: Path, lists: Lists, vocabulary: Vocabulary) -> Present:
    """Read the tags that are labels from the file of all tags. It has half a gigabyte, so it is read in blocks.

    Raises:
        LesaError: a line does not contain a 0 or a 1 for each tag, or the number of lines is not the number of photos.
    """
    seen = frozenset(vocabulary.seen)
    kept = np.array([column for column, tag in enumerate(lists.tags) if tag in seen], dtype=np.int64)
    rows, columns, start = [], [], 0
    with path.open("rb") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        while block := list(islice(lines, BLOCK)):
            digits = b"".join([_read_tag_line(line, len(lists.tags), path, number) for number, line in block])
            present_BT = np.frombuffer(digits, dtype=np.uint8).reshape(len(block), -1) == ONE
            row, column = present_BT[:, kept].nonzero()
            rows.append(row + start)
            columns.append(column + len(vocabulary.unseen))
            start += len(block)
    if start != len(lists.photos):
        raise LesaError(
            f"{path}:{start}: expected {len(lists.photos):,} lines, one for each photo of Imagelist.txt, found "
            f"{start:,}: take both from the official archives"
        )
    return np.concatenate(rows), np.concatenate(columns)


def _read_tag_line(line: bytes, tags: int, path: Path, number: int) -> bytes:
    """Return the zeros and ones of a photo.

    Raises:
        LesaError: their number is not that of the tags, or the line contains anything else.
    """
    digits = _read_digits(line, tags)
    if digits is None:
        cells = line.split()
        wrong = next((cell for cell in cells if cell not in (b"0", b"1")), None)
        found = f"{len(cells):,} columns" if wrong is None else repr(wrong[:80])
        raise LesaError(
            f"{path}:{number}: expected a 0 or a 1 for each of the {tags:,} tags of TagList1k.txt, found {found}: "
            "take both from NUS_WID_Tags.zip"
        )
    return digits


# splits


def _make_splits(lists: Lists, present: list[Present], vocabulary: Vocabulary) -> dict[str, Split]:
    """Return the three splits. In a small copy, at most half of the training photos are for validation."""
    rows, columns = (np.concatenate(parts) for parts in zip(*present, strict=True))
    shape = len(lists.photos), len(vocabulary.names)
    targets = Targets.from_entries(rows, columns, np.ones(len(rows), dtype=np.int8), shape, rest=-1)
    row_of = {name: row for row, name in enumerate(lists.photos)}
    train = list(lists.train)
    first = min(VALIDATION, len(train) // 2)
    names = {"train": train[first:], "validation": train[:first], "test": list(lists.test)}
    return {
        split: Split(tuple(photos), Targets(targets.entries[[row_of[name] for name in photos]], targets.rest))
        for split, photos in names.items()
    }


def _without_unlabelled(dataset: Dataset) -> Dataset:
    """Return the data set without the photos that have no present label. `source` has their number."""
    empty = {
        name: [split.photos[row] for row in np.flatnonzero(np.diff(split.targets.entries.indptr) == 0)]
        for name, split in dataset.splits.items()
    }
    left_out = {name: len(photos) for name, photos in empty.items()}
    splits = {name: split.without(frozenset(empty[name])) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits, source={**dataset.source, "photos_without_label": left_out})


def _differences(lists: Lists, splits: dict[str, Split]) -> list[str]:
    """Return one sentence for each count that differs from the official count."""
    found = {
        "photos": len(lists.photos),
        "training photos": len(lists.train),
        "test photos": len(lists.test),
        "validation photos": len(splits["validation"].photos),
        "concepts": len(lists.concepts),
    }
    if lists.tags:
        found["tags"] = len(lists.tags)
        found["tags that are not concepts"] = len(lists.tags.keys() - lists.concepts.keys())
        found["concepts that are not tags"] = len(lists.concepts.keys() - lists.tags.keys())
    sentences = [
        f"{what[0].upper()}{what[1:]}: {number:,} instead of the official {OFFICIAL[what]:,}."
        for what, number in found.items()
        if number != OFFICIAL[what]
    ]
    if unused := len(lists.photos) - len(lists.train) - len(lists.test):
        sentences.append(f"Photos of Imagelist.txt in neither split: {unused:,} instead of the official 0.")
    return sentences
