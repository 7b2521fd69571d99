"""COCO's instance annotations -> a data set of its 80 labels, or of one of the two zero-shot splits of them.

* `65/15`: Rahman, Khan and Barnes, "Improved Visual-Semantic Alignment for Zero-Shot Object Detection" (AAAI 2020) and
  "Polarity Loss for Zero-shot Object Detection" (arXiv:1811.08982, 2018). 15 labels are unseen, the other 65 seen.
* `48/17`: Bansal et al., "Zero-Shot Object Detection" (ECCV 2018). 17 labels are unseen, 48 seen. The 15 labels with
  names of two words are left out.
* `80`: all labels are seen (multi-label learning).

The rules:

* A label is present in a photo if it has an instance there; crowds are instances. COCO annotates all instances of its
  labels, so all other labels are absent. Photos without any instance are kept.
* No training photo shows an unseen object: such photos are left out, as in the annotation files published for both
  splits (Zheng et al., "Zero-Shot Instance Segmentation", CVPR 2021).
* Validation is the 5 % of the training photos that `split_of` chooses by name. The published lists have no validation.
* Test is all val photos of COCO. The published test lists of zero-shot detection keep only photos with an unseen
  object. They are for the edition of 2014. The edition of 2017 is prepared by the same rules.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesa.errors import LesaError, did_you_mean
from lesa.files import sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, split_from_present, split_of
from lesa.learn.datasets.official_files import SourceFile, require_files

LABELS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""COCO's labels in the order of their ids. The unseen columns and the seen columns are in this order."""

UNSEEN = {
    "65/15": frozenset(
        {"airplane", "train", "parking meter", "cat", "bear", "suitcase", "frisbee", "snowboard", "fork", "sandwich"}
        | {"hot dog", "toilet", "mouse", "toaster", "hair drier"}
    ),
    "48/17": frozenset(
        {"umbrella", "cow", "cup", "bus", "keyboard", "skateboard", "dog", "couch", "tie", "snowboard", "sink"}
        | {"elephant", "cake", "scissors", "airplane", "cat", "knife"}
    ),
    "80": frozenset[str](),
}

ARCHIVE = "annotations_trainval2014.zip, https://cocodataset.org/#download; or that of 2017"
FILES = tuple(
    SourceFile(
        f"annotations/instances_{part}2014.json",
        ARCHIVE,
        (f"instances_{part}2014.json", f"annotations/instances_{part}2017.json", f"instances_{part}2017.json"),
    )
    for part in ("train", "val")
)
IMAGES = {"2014": (82_783, 40_504), "2017": (118_287, 5_000)}
"""Official numbers of train and val images in each edition."""

USED = frozenset({"images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name"})


@dataclass(frozen=True)
class Instances:
    """The labels of whole photos in an instances file."""

    labels_of: dict[str, set[str]]
    """File name of each photo -> its present labels. The photos are in the order of the file."""
    categories: frozenset[str]


def prepare_coco(root: Path | str, kind: str = "65/15") -> Dataset:
    """Make a data set from COCO's instances files by the rules at the top of this module.

    Args:
        root: The folder of `annotations/`, or of the two files themselves: both of 2014 or both of 2017.
        kind: `65/15`, `48/17` or `80`.

    Raises:
        LesaError: there is no such kind, or a file is missing or malformed.
    """
    if kind not in UNSEEN:
        raise LesaError(f"there is no split {kind!r} of COCO's labels; {did_you_mean(kind, UNSEEN)}")
    paths = require_files(Path(root), FILES)
    edition = _edition_of(paths)
    train, val = (_read_instances(path) for path in paths)
    if both := train.labels_of.keys() & val.labels_of.keys():
        raise LesaError(f"{min(both)} is in both {paths[0]} and {paths[1]}: unpack the archive again")
    kept = [photo for photo, labels in train.labels_of.items() if UNSEEN[kind].isdisjoint(labels)]
    validation = [photo for photo in kept if split_of(photo) == "validation"]
    rest = [photo for photo in kept if split_of(photo) != "validation"]
    vocabulary = vocabulary_of(kind)
    return Dataset(
        name=f"coco-{edition}-{kind.replace('/', '-')}",
        vocabulary=vocabulary,
        splits={
            "train": split_from_present(rest, train.labels_of, vocabulary),
            "validation": split_from_present(validation, train.labels_of, vocabulary),
            "test": split_from_present(list(val.labels_of), val.labels_of, vocabulary),
        },
        source={
            "adapter": "coco",
            "kind": kind,
            "edition": edition,
            "photos_with_unseen_left_out": len(train.labels_of) - len(kept),
            "sha256": {path.name: sha256(path) for path in paths},
            "differences": _differences(edition, train, val),
        },
    )


def coco_paths(name: str) -> list[str]:
    """Return the paths that a photo may have: in the folder of its part and edition, or in one folder with all."""
    return [*(f"{part}{edition}/{name}" for edition in IMAGES for part in ("train", "val")), name]


def _edition_of(paths: list[Path]) -> str:
    """Return the edition, `2014` or `2017`, of the train and the val file.

    Raises:
        LesaError: they are of different editions. Some val photos of 2014 are training photos of 2017.
    """
    editions = {edition for edition in IMAGES for path in paths if edition in path.name}
    if len(editions) > 1:
        raise LesaError(f"{paths[0]} and {paths[1]} are of two editions: give both files of 2014, or both of 2017")
    return editions.pop()


def vocabulary_of(kind: str) -> Vocabulary:
    """Return the unseen and the seen labels of a kind by the rules at the top of this module."""
    unseen = UNSEEN[kind]
    left_out = {label for label in LABELS if kind == "48/17" and " " in label}
    return Vocabulary(
        unseen=tuple(label for label in LABELS if label in unseen),
        seen=tuple(label for label in LABELS if label not in unseen | left_out),
    )


def _read_instances(path: Path) -> Instances:
    """Read the labels of each photo in an instances file.

    Raises:
        LesaError: the file is not an instances file of COCO, or it contradicts itself.
    """
    content = _read_used(path)
    try:
        categories = {category["id"]: category["name"] for category in content["categories"]}
        images = [(image["id"], image["file_name"]) for image in content["images"]]
        instances = {(instance["image_id"], instance["category_id"]) for instance in content["annotations"]}
        _check_images(path, images)
        _check_categories(path, set(categories.values()))
    except (KeyError, TypeError) as error:
        raise LesaError(
            f"{path} is not a file of COCO instances ({type(error).__name__}: {error}): expected `images` with `id` "
            "and `file_name`, `annotations` with `image_id` and `category_id`, `categories` with `id` and `name`"
        ) from None
    names = dict(images)
    labels_of: dict[str, set[str]] = {name: set() for name in names.values()}
    for image, category in instances:
        if image not in names or category not in categories:
            raise LesaError(
                f"{path} annotates image {image!r} with category {category!r}, one of which it does not list: "
                "unpack it again"
            )
        labels_of[names[image]].add(categories[category])
    return Instances(labels_of, frozenset(categories.values()))


def _read_used(path: Path) -> Any:
    """Read a JSON file without the values that are not used: most of the file are outlines.

    Raises:
        LesaError: the file is not JSON.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=lambda values: {key: values[key] for key in values if key in USED})
    except (ValueError, RecursionError) as error:
        raise LesaError(f"{path} is not valid JSON: {error}: unpack it again") from None


def _check_images(path: Path, images: list[tuple[int, str]]) -> None:
    """Refuse invalid file names, and images with the same id or the same file name."""
    for _, name in images:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise LesaError(f"{path} names an image {name!r}: expected a file name without folders")
    for values in zip(*images, strict=True):
        value, times = Counter(values).most_common(1)[0]
        if times > 1:
            raise LesaError(f"{path} lists image {value!r} {times} times, expected once: unpack it again")


def _check_categories(path: Path, categories: set[str]) -> None:
    if unknown := categories.difference(LABELS):
        raise LesaError(
            f"{path} has the category {min(unknown)!r}, which is not one of COCO's 80 object labels: "
            "use `lesa prepare folder` for other labels"
        )


def _differences(edition: str, train: Instances, val: Instances) -> list[str]:
    """Return one sentence for each count that differs from the official count."""
    found = []
    for part, instances, official in zip(("train", "val"), (train, val), IMAGES[edition], strict=True):
        counts = (len(instances.labels_of), official, "images"), (len(instances.categories), len(LABELS), "categories")
        found += [f"{part}{edition} has {n:,} {what}, officially {of:,}." for n, of, what in counts if n != of]
    return found
