"""The XML annotations of Pascal VOC 2007 or 2012 -> a data set of its 20 labels.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge" (IJCV 2010). The rules:

* A label is present in a photo if it has an object there that is not marked as difficult. It is absent if it has no
  object there. If all its objects are difficult, it is not annotated (0): the official evaluation ignores such photos
  for that label.
* Splits are the official lists: train, val as validation, test. If the test list or its annotations are not public
  (2012), val is the test split, and validation is the 5 % of train that `split_of` chooses by name.
* No photo of training or validation shows an unseen object, difficult or not: such photos are left out.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError, did_you_mean
from lesa.files import numbered_lines, sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, split_of
from lesa.learn.datasets.official_files import SourceFile, require_files

LABELS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

ARCHIVE = (
    "VOCdevkit/VOC2007 of VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar, or VOCdevkit/VOC2012 of "
    "VOCtrainval_11-May-2012.tar, http://host.robots.ox.ac.uk/pascal/VOC/"
)
FILES = tuple(
    SourceFile(name, ARCHIVE) for name in ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt", "Annotations")
)
TEST_LIST = "ImageSets/Main/test.txt"
PHOTOS = {
    "2007": {"train": 2_501, "val": 2_510, "test": 4_952},
    "2012": {"train": 5_717, "val": 5_823},
}
"""Official numbers of photos in each list."""

Objects = dict[str, bool]
"""The labels of the objects in a photo: label -> whether one of its objects is not difficult."""


def prepare_voc(root: Path | str, unseen: tuple[str, ...] = ()) -> Dataset:
    """Make a data set from Pascal VOC by the rules at the top of this module.

    Args:
        root: The folder of one year, such as `VOCdevkit/VOC2007`.
        unseen: The unseen labels, in the order of their columns. All other labels are seen.

    Raises:
        LesaError: a file is missing or malformed, or a label is not one of the 20.
    """
    root = Path(root)
    for label in unseen:
        if label not in LABELS:
            raise LesaError(f"{label!r} is not a label of Pascal VOC; {did_you_mean(label, LABELS)}")
    vocabulary = Vocabulary(tuple(unseen), tuple(label for label in LABELS if label not in unseen))
    lists, remarks = _read_lists(root)
    annotations = _read_annotations(root / "Annotations", [name for names in lists.values() for name in names])
    objects_of = {
        name: _parse_objects(text, root / "Annotations" / f"{name}.xml") for name, text in annotations.items()
    }
    kept = {
        split: [name for name in names if split == "test" or objects_of[name].keys().isdisjoint(unseen)]
        for split, names in _make_splits(lists).items()
    }
    return Dataset(
        name=f"voc-{_year_of(lists)}",
        vocabulary=vocabulary,
        splits={split: _make_split(names, objects_of, vocabulary) for split, names in kept.items()},
        source={
            "adapter": "voc",
            "unseen": list(unseen),
            "photos_with_unseen_left_out": len(objects_of) - sum(map(len, kept.values())),
            "sha256": {
                **{f"{name}.txt": sha256(root / "ImageSets/Main" / f"{name}.txt") for name in lists},
                "Annotations": hashlib.sha256(b"".join(annotations.values())).hexdigest(),
            },
            "differences": remarks + _differences(lists),
        },
    )


def voc_paths(name: str) -> list[str]:
    """Return the two paths that a photo may have: in the folder of the photos, and in the folder above it."""
    return [name, f"JPEGImages/{name}"]


def _read_lists(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Read the official lists: the photos of `train`, `val` and, if it has its annotations, `test`.

    Returns:
        The lists, and a sentence if there is no test list that can be used.

    Raises:
        LesaError: a file is missing or malformed, or a photo is in two lists.
    """
    train, val, annotations = require_files(root, FILES)
    lists = {"train": _read_list(train), "val": _read_list(val)}
    remarks = []
    if (root / TEST_LIST).is_file():
        lists["test"] = _read_list(root / TEST_LIST)
        if lacking := sum(not (annotations / f"{name}.xml").is_file() for name in lists["test"]):
            of = len(lists.pop("test"))
            remarks = [f"{lacking:,} of the {of:,} photos of {TEST_LIST} have no annotation: val is the test split."]
    else:
        remarks = [f"There is no {TEST_LIST}: val is the test split."]
    times = Counter(name for names in lists.values() for name in names)
    if twice := [name for name in times if times[name] > 1]:
        raise LesaError(f"photo {twice[0]} appears twice in the lists of {root / 'ImageSets/Main'}: unpack them again")
    return lists, remarks


def _read_list(path: Path) -> list[str]:
    """Read the names, without suffix, of an image set.

    Raises:
        LesaError: the file cannot be read, or a line is not one name.
    """
    names = []
    for where, line in numbered_lines(path):
        if not re.fullmatch(r"\w+", line.strip()):
            raise LesaError(f"{where}: expected the name of a photo such as 000005, found {line[:80]!r}")
        names.append(line.strip())
    return names


def _year_of(lists: dict[str, list[str]]) -> str:
    """Return the year. The photos of 2012 have names such as `2008_000001`, those of 2007 such as `000005`."""
    return "2012" if any("_" in name for name in lists["train"]) else "2007"


def _make_splits(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the photos of each split by the rules at the top of this module."""
    if "test" in lists:
        return {"train": lists["train"], "validation": lists["val"], "test": lists["test"]}
    validation = [name for name in lists["train"] if split_of(f"{name}.jpg") == "validation"]
    train = [name for name in lists["train"] if split_of(f"{name}.jpg") != "validation"]
    return {"train": train, "validation": validation, "test": lists["val"]}


def _read_annotations(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Read the XML of each photo.

    Raises:
        LesaError: one is missing.
    """
    try:
        return {name: (folder / f"{name}.xml").read_bytes() for name in names}
    except FileNotFoundError as error:
        raise LesaError(f"{error.filename} does not exist, though its photo is listed; unpack {ARCHIVE}") from None


class PlainTree(ElementTree.TreeBuilder):
    """Builds the tree of a document without own entities, which could become very large or read other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        """Refuse a document type: without one, no entity can be declared.

        Raises:
            LesaError: always.
        """
        raise LesaError("it declares a document type; annotations have none, and it could do harm")


def _parse_objects(text: bytes, path: Path) -> Objects:
    """Return the objects of an annotation.

    Raises:
        LesaError: the XML is malformed or unsafe, or the name of an object is not one of the 20 labels.
    """
    try:
        annotation = ElementTree.fromstring(text, ElementTree.XMLParser(target=PlainTree()))
    except (ElementTree.ParseError, LesaError, ValueError, LookupError) as error:
        raise LesaError(f"{path} is not read: {error}: unpack it again") from None
    if annotation.tag != "annotation":
        raise LesaError(f"{path} holds <{annotation.tag}>, expected <annotation>: unpack it again")
    objects: Objects = {}
    for item in annotation.findall("object"):
        label = item.findtext("name", "").strip()
        if label not in LABELS:
            raise LesaError(f"{path}: {label!r} is not a label of Pascal VOC; {did_you_mean(label, LABELS)}")
        objects[label] = objects.get(label, False) or item.findtext("difficult", "0").strip() != "1"
    return objects


def _make_split(names: list[str], objects_of: dict[str, Objects], vocabulary: Vocabulary) -> Split:
    """Return a split: +1, or 0 if all objects are difficult, or -1 if there is no object."""
    columns = {label: column for column, label in enumerate(vocabulary.names)}
    targets_NC: NDArray[np.int8] = np.full((len(names), len(columns)), -1, dtype=np.int8)
    for row, name in enumerate(names):
        for label, clear in objects_of[name].items():
            targets_NC[row, columns[label]] = clear
    rows, at = np.nonzero(targets_NC)
    targets = Targets.from_entries(rows, at, targets_NC[rows, at], (len(names), len(columns)), rest=0)
    return Split(tuple(f"{name}.jpg" for name in names), targets)


def _differences(lists: dict[str, list[str]]) -> list[str]:
    """Return one sentence for each count that differs from the official count."""
    year = _year_of(lists)
    found = {part: len(lists.get(part, ())) for part in PHOTOS[year]}
    return [
        f"{part} of {year} has {found[part]:,} photos, officially {official:,}."
        for part, official in PHOTOS[year].items()
        if found[part] != official
    ]
