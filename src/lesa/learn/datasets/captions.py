"""Captioned photos -> a data set: seen labels as noisy as user tags, unseen labels that several people agree on.

The rules (Flickr8k's own caption file and NUS-WIDE's two word lists give the project's benchmark):

* A caption's words are the runs of a-z in its lower-cased text.
* A seen word is present if it stands in caption 0 or 1 of the photo, literally. Words of the unseen list are no seen
  labels. A seen label is kept if at least five training photos carry it.
* An unseen word is present if at least two captions mention it in singular or plural. An unseen label is kept if at
  least five test photos carry it.
* The split follows from the photo's name alone (`split_of`).
* `clean` leaves out the seen labels that are the singular or plural of a kept unseen label.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lesa.annotations import SPLITS
from lesa.errors import LesaError
from lesa.files import numbered_lines, read_lines, sha256
from lesa.labels import Vocabulary, are_twins, other_forms
from lesa.learn.datasets.dataset import Dataset, Split, Targets, split_of

Captions = dict[int, frozenset[str]]
"""One photo's captions: their number -> their words."""

NOISY_CAPTIONS = (0, 1)
AGREEING_CAPTIONS = 2
MIN_PHOTOS = 5
LINE = re.compile(r"(?P<photo>[^\t]+)#(?P<number>\d+)\t(?P<caption>.*)")


def prepare_captions(
    captions: Path | str,
    seen_words: Path | str,
    unseen_words: Path | str,
    photo_names: Sequence[str] | None = None,
    clean: bool = False,
) -> Dataset:
    """Make a data set from captioned photos by the rules in this module's first lines.

    Args:
        captions: A line `photo#number<TAB>caption` a caption, as `Flickr8k.token.txt`.
        seen_words: List of the words that may become seen labels, one per line; its order is that of the labels.
        unseen_words: List of the words that may become unseen labels, one per line.
        photo_names: Photos that there are; captions of others are left out. All photos of the caption file if None.
        clean: Leave out seen labels that are the singular or plural of an unseen one.

    Raises:
        LesaError: a file cannot be read, a caption line is malformed, or no label is carried by enough photos.
    """
    paths = [Path(path) for path in (captions, seen_words, unseen_words)]
    captions_by_photo = read_captions(paths[0])
    there = None if photo_names is None else frozenset(photo_names)
    photos = [name for name in captions_by_photo if is_photo(name, there)]
    concepts = list(dict.fromkeys(read_lines(paths[2])))
    tags = [word for word in dict.fromkeys(read_lines(paths[1])) if word not in concepts]
    noisy = {name: _noisy_labels(captions_by_photo[name], tags) for name in photos}
    agreed = {name: _agreed_labels(captions_by_photo[name], concepts) for name in photos}
    photos_of = {split: [name for name in photos if split_of(name) == split] for split in SPLITS}
    seen = _keep_frequent(tags, [noisy[name] for name in photos_of["train"]], f"training photos for {paths[1]}")
    unseen = _keep_frequent(concepts, [agreed[name] for name in photos_of["test"]], f"test photos for {paths[2]}")
    twins = [word for word in seen if any(are_twins(word, other) for other in unseen)] if clean else []
    vocabulary = Vocabulary(unseen=tuple(unseen), seen=tuple(word for word in seen if word not in twins))
    present = {name: noisy[name] | agreed[name] for name in photos}
    return Dataset(
        name=paths[0].name.split(".")[0].lower() + ("-clean" if clean else ""),
        vocabulary=vocabulary,
        splits={split: make_split(names, present, vocabulary) for split, names in photos_of.items()},
        source={
            "adapter": "captions",
            "clean": clean,
            "twins_left_out": twins,
            "photos_left_out": sorted(captions_by_photo.keys() - set(photos)),
            "sha256": {path.name: sha256(path) for path in paths},
        },
    )


def read_captions(path: Path) -> dict[str, Captions]:
    """Read each photo's captions as sets of words, in the file's order of photos.

    Raises:
        LesaError: the file cannot be read, or a line is not `photo#number<TAB>caption`, or a caption appears twice.
    """
    captions_by_photo: dict[str, Captions] = {}
    for where, line in numbered_lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise LesaError(f"{where}: expected `photo#number<TAB>caption`, found {line[:80]!r}: correct the line")
        photo = captions_by_photo.setdefault(match["photo"], {})
        number = int(match["number"])
        if number in photo:
            raise LesaError(f"{where}: caption {number} of {match['photo']!r} appears twice: keep one of them")
        photo[number] = frozenset(re.findall("[a-z]+", match["caption"].lower()))
    return captions_by_photo


def is_photo(name: str, photo_names: frozenset[str] | None) -> bool:
    """Whether what was captioned is a photo of the collection.

    Flickr8k's own file captions one `2258277193_586949ec62.jpg.1`, which was never among the photos: a name that ends
    in a bare number is left out even where the photos are not at hand to look.
    """
    return name in photo_names if photo_names is not None else not Path(name).suffix[1:].isdigit()


def _noisy_labels(captions: Captions, words: Iterable[str]) -> set[str]:
    """Return the words that stand in one of the first two captions: what one or two people thought of saying."""
    return {word for word in words if any(word in captions.get(number, ()) for number in NOISY_CAPTIONS)}


def _agreed_labels(captions: Captions, words: Iterable[str]) -> set[str]:
    """Return the words that at least two captions mention in singular or plural."""
    agreed = set()
    for word in words:
        forms = other_forms(word) | {word}
        if sum(not forms.isdisjoint(said) for said in captions.values()) >= AGREEING_CAPTIONS:
            agreed.add(word)
    return agreed


def _keep_frequent(words: Iterable[str], labels_by_photo: Iterable[set[str]], where: str) -> list[str]:
    """Return the words that at least five photos carry, in their order.

    Raises:
        LesaError: there is none.
    """
    carried = Counter(word for labels in labels_by_photo for word in labels)
    kept = [word for word in words if carried[word] >= MIN_PHOTOS]
    if not kept:
        raise LesaError(f"too few {where}: no word of it is carried by {MIN_PHOTOS}; give more photos or other words")
    return kept


def make_split(names: list[str], present: dict[str, set[str]], vocabulary: Vocabulary) -> Split:
    """Return a split: what is not present is absent."""
    columns = {word: column for column, word in enumerate(vocabulary.names)}
    rows = [[columns[word] for word in present[name] if word in columns] for name in names]
    return Split(tuple(names), Targets.from_present(rows, len(columns)))
