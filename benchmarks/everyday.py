"""Evaluate a bundle on photos of everyday things: on the photos' own labels, and on the tags that it gives by itself.

    python benchmarks/everyday.py default PHOTOS labels.csv [--json numbers.json] [--sheet tags.jpg]

labels.csv has the columns `photo,labels`; `;` separates labels. A row that stands there twice counts once. Nothing is
trained or fitted.

First table, the photos' own labels: the bundle puts all of them in order for each photo. Top-1 and top-5 are the shares
of photos with one of their labels first or among the first five; mAP is the mean of the labels' average precisions
(rules `sklearn`). A label that the bundle has no vector for cannot be asked for: it has no column and no average
precision, and a photo that has no other label counts as missed. Chance is the mean over random orders.

Second table, the bundle's own tags: a tag is right if it is a label of the photo, one of the label's kinds in the
bundle's hierarchy, or a word of everyday-accepted.toml for the photo. Singular and plural are the same. "Tags of other
photos" takes each photo's tags for all other photos: that much is right if a bundle only knows what is common here. The
last row takes only the label itself for right, which tells a bundle that names things from one that names colours.

Third table: the number of tags with the default limits, and the calibration error of each photo's five best of the own
labels. Few things in a photo have a label: what is not annotated counts as absent, so that the error looks greater
than it is.

Prints Markdown tables, in percent where nothing else is said.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesa.drawing import BACKGROUND, beside, caption, fit_inside, framed, stacked
from lesa.errors import LesaError
from lesa.evaluation.metrics import top_k
from lesa.evaluation.report import evaluate
from lesa.files import write_json
from lesa.fit_calibration import reliability, score_photos
from lesa.images import open_photo
from lesa.labels import other_forms
from lesa.tagger import Tag, Tagger

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ACCEPTED = Path(__file__).with_name("everyday-accepted.toml")
"""The words that are right, by label and by photo; its first lines explain it."""
RANDOM_ORDERS = 50
"""Number of random orders whose mean is chance."""
KS = (1, 5)
"""A photo is found if one of its labels is among this number of first labels."""
FIRST = (1, 3)
"""A photo is tagged right if one of this number of first tags is right."""
SHEET_PHOTOS, SHEET_TAGS, SHEET_COLUMNS, SHEET_BOX = 20, 5, 5, (240, 180)
"""For the sheet: photos, tags per photo, photos in a row, and the box in pixels that a photo fits into."""


@dataclass(frozen=True)
class Photo:
    """A photo of the exam."""

    path: Path
    labels: tuple[str, ...]
    """What the photo shows, by the CSV file."""
    accepted: frozenset[str]
    """Other words that describe it."""


@dataclass(frozen=True)
class Tagged:
    """A photo with the bundle's own tags."""

    photo: Photo
    right: frozenset[str]
    """All words that are right for it: labels, their kinds, accepted words."""
    tags: tuple[Tag, ...]
    """Its best tags, whatever their probability."""
    count: int
    """The number of its tags with the default limits."""


def read_exam(folder: Path, labels: Path) -> list[Photo]:
    """Read the labels of the photos and the accepted words.

    Raises:
        SystemExit: a label has no line in the table of accepted words.
    """
    accepted = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))
    with labels.open(encoding="utf-8-sig", newline="") as file:
        labels_of = {row["photo"]: _list(row["labels"], ";") for row in csv.DictReader(file)}
    labels_of |= {name: _list(right) for name, right in accepted["corrected"].items() if name in labels_of}
    missing = {label for each in labels_of.values() for label in each} - accepted["labels"].keys()
    if missing:
        raise SystemExit(f"{ACCEPTED} has no line for {', '.join(sorted(missing))}: write what else is right there")
    return [Photo(folder / name, each, _accepted(accepted, name, each)) for name, each in labels_of.items()]


def _accepted(table: Mapping[str, Any], photo: str, labels: Sequence[str]) -> frozenset[str]:
    """Return the words that the table accepts for a photo with these labels."""
    lists = [table["photos"].get(photo, ""), *(table["labels"][label] for label in labels)]
    for group in table["shared"]:
        if photo in _list(group.get("photos", "")) or not set(labels).isdisjoint(_list(group.get("labels", ""))):
            lists.append(group["words"])
    return frozenset(word for words in lists for word in _list(words))


def _list(text: str, separator: str = ",") -> tuple[str, ...]:
    """Return the parts of a text, without blanks around them."""
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def evaluate_labels(tagger: Tagger, exam: Sequence[Photo]) -> dict[str, Any]:
    """Let the bundle put the photos' own labels in order; return how well it does, and its calibration."""
    labels = sorted({label for photo in exam for label in photo.labels})
    known = [label for label in labels if has_vector(tagger, label)]
    targets_NC = np.array([[1 if label in photo.labels else -1 for label in known] for photo in exam], np.int8)
    labelled = score_photos(tagger, [photo.path for photo in exam], targets_NC, known, print)
    # The log odds of the bundle's calibration: the order in which `lesa tag` would list the labels.
    order_NC, present_NC = labelled.before_NC, labelled.targets_NC > 0
    rng = np.random.default_rng(0)
    orders = [ranking(rng.random(order_NC.shape), present_NC) for _ in range(RANDOM_ORDERS)]
    error = reliability(order_NC, labelled.targets_NC)
    return {
        "photos": len(order_NC),
        "labels": len(labels),
        "labels_without_vector": sorted(set(labels) - set(known)),
        "bundle": ranking(order_NC, present_NC),
        "chance": {name: float(np.mean([each[name] for each in orders])) for name in orders[0]},
        "calibration_error": 100 * error.ece if labelled.calibrated else None,
        "calibration_error_of_best_five": 100 * error.ece_best if labelled.calibrated else None,
    }


def has_vector(tagger: Tagger, label: str) -> bool:
    """Whether the bundle can be asked for a label."""
    try:
        tagger.labels([label])
    except LesaError:
        return False
    return True


def ranking(order_NC: NDArray[Any], present_NC: NDArray[np.bool_]) -> dict[str, float]:
    """Return top-1, top-5 and mAP of an order of the labels, in percent."""
    first_NC = {k: top_k(order_NC, min(k, order_NC.shape[1])) for k in KS}
    shares = {f"top-{k}": 100 * float((first & present_NC).any(axis=1).mean()) for k, first in first_NC.items()}
    return shares | {"mAP": evaluate(order_NC, present_NC, "sklearn").mean_average_precision}


def tag_all(tagger: Tagger, exam: Sequence[Photo]) -> Iterator[Tagged]:
    """Yield the photos with the bundle's own tags; one that cannot be read is named and left out."""
    own, parents = tagger.labels(), tagger.bundle.manifest.parents
    limits = tagger.limits(own)
    for photo, (_, codes) in zip(exam, tagger.stream([photo.path for photo in exam]), strict=True):
        if isinstance(codes, LesaError):
            print(codes)
            continue
        kinds = {kind for label in photo.labels for kind in parents.get(tagger.canonical(label), ())}
        right = photo.accepted | kinds | set(photo.labels)
        tags = tagger.rank(codes, own, SHEET_TAGS)
        yield Tagged(photo, right, tuple(tags), len(tagger.rank(codes, own, *limits)))


def is_right(tag: str, right: frozenset[str]) -> bool:
    """Whether a tag, or its singular or plural, is among the right words.

    Example:
        >>> is_right("trees", frozenset({"tree"})), is_right("tree house", frozenset({"tree"}))
        (True, False)
    """
    return not right.isdisjoint(forms(tag))


@cache
def forms(word: str) -> frozenset[str]:
    """Return a word with its singular or its plurals."""
    return frozenset({word} | other_forms(word))


def evaluate_tags(tagged: Sequence[Tagged]) -> dict[str, Any]:
    """Return how often the first tags are right, on the photos and on other photos, and how many tags there are."""
    right = [each.right for each in tagged]
    rights = {first: rights_of_first(tagged, right, first) for first in FIRST}
    labels = [frozenset(each.photo.labels) for each in tagged]
    others_NN = ~np.eye(len(tagged), dtype=bool)
    counts_N = np.array([each.count for each in tagged])
    return {
        "bundle": {str(first): 100 * float(right_NN.diagonal().mean()) for first, right_NN in rights.items()},
        "of_other_photos": {str(first): 100 * float(right_NN[others_NN].mean()) for first, right_NN in rights.items()},
        "label": {str(first): 100 * float(rights_of_first(tagged, labels, first).diagonal().mean()) for first in FIRST},
        "tags_per_photo": float(counts_N.mean()),
        "photos_without_tag": 100 * float((counts_N == 0).mean()),
        "commonest_first_tags": Counter(each.tags[0].label for each in tagged).most_common(8),
    }


def rights_of_first(tagged: Sequence[Tagged], right: Sequence[frozenset[str]], first: int) -> NDArray[np.bool_]:
    """Return whether one of the first tags of photo i (row) would be right for photo j (column)."""
    return np.array([[any(is_right(tag.label, words) for tag in a.tags[:first]) for words in right] for a in tagged])


def print_report(labels: Mapping[str, Any], tags: Mapping[str, Any], own: int) -> None:
    """Print the numbers as tables."""
    missing = labels["labels_without_vector"]
    known = labels["labels"] - len(missing)
    without = (
        f"{len(missing)} without a vector in the bundle ({', '.join(missing)})" if missing else "all with a vector"
    )
    print(f"{labels['photos']} photos, {labels['labels']} labels, {without}\n")
    print(f"| order of {known} labels | top-1 | top-5 | mAP |\n|---|---|---|---|")
    for name in ("bundle", "chance"):
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in labels[name].values()) + " |")
    print(f"\n| first of {own} own tags | the first is right | one of three is right |\n|---|---|---|")
    for name, key in (("bundle", "bundle"), ("tags of other photos", "of_other_photos"), ("the label itself", "label")):
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in tags[key].values()) + " |")
    print("\nCommonest first tags: " + ", ".join(f"{tag} ({count})" for tag, count in tags["commonest_first_tags"]))
    print("\n| tags per photo | photos without a tag | calibration error of the best five | of all labels |")
    print("|---" * 4 + "|")
    errors = [labels["calibration_error_of_best_five"], labels["calibration_error"]]
    cells = ["not calibrated" if error is None else f"{error:.1f}" for error in errors]
    print(f"| {tags['tags_per_photo']:.1f} | {tags['photos_without_tag']:.1f} | {' | '.join(cells)} |")
    print("\nFor the calibration error, labels that are not annotated count as absent.")


def describe(tagged: Tagged) -> dict[str, Any]:
    """Return a photo's tags as JSON holds them."""
    tags = [
        {"label": tag.label, "probability": tag.probability, "right": is_right(tag.label, tagged.right)}
        for tag in tagged.tags
    ]
    return {"photo": tagged.photo.path.name, "labels": tagged.photo.labels, "count": tagged.count, "tags": tags}


def sheet(tagged: Sequence[Tagged]) -> Image.Image:
    """Draw some photos, from all parts of the file, each above its best tags; a star marks the right ones."""
    places = np.linspace(0, len(tagged) - 1, min(SHEET_PHOTOS, len(tagged))).round().astype(int)
    cells = [_cell(tagged[place]) for place in places]
    return framed(stacked([beside(cells[i : i + SHEET_COLUMNS]) for i in range(0, len(cells), SHEET_COLUMNS)], 16))


def _cell(tagged: Tagged) -> Image.Image:
    """Draw a photo above its best tags."""
    image = open_photo(tagged.photo.path)
    box = Image.new("RGB", SHEET_BOX, BACKGROUND)
    box.paste(image.resize(fit_inside(image.size, SHEET_BOX)))
    stars = ["* " if is_right(tag.label, tagged.right) else "" for tag in tagged.tags]
    lines = [caption(star + tag.label, tag.text, box.width) for star, tag in zip(stars, tagged.tags, strict=True)]
    return stacked([box, *lines])


def main() -> None:
    """Evaluate the bundle; print and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle, or `default`")
    parser.add_argument("photos", type=Path, help="the folder of the photos")
    parser.add_argument("labels", type=Path, help="the labels of the photos, a CSV file")
    parser.add_argument("--json", type=Path, help="write all numbers and each photo's tags to this file")
    parser.add_argument("--sheet", type=Path, help="draw twenty photos with their tags (PNG or JPEG)")
    arguments = parser.parse_args()
    tagger, exam = Tagger(arguments.bundle), read_exam(arguments.photos, arguments.labels)
    labels, tagged = evaluate_labels(tagger, exam), list(tag_all(tagger, exam))
    tags = evaluate_tags(tagged)
    print_report(labels, tags, len(tagger.bundle.manifest.tags))
    if arguments.json:
        photos = [describe(each) for each in tagged]
        write_json(arguments.json, {"bundle": arguments.bundle, "labels": labels, "tags": tags, "photos": photos})
    if arguments.sheet:
        sheet(tagged).save(arguments.sheet)


if __name__ == "__main__":
    main()
