"""Captioned photos -> a data set. The seen labels are noisy like user tags; on unseen labels several people agree.

The rules (the project's benchmark uses Flickr8k's own caption file and NUS-WIDE's two word lists):

* The words of a caption are the runs of a-z in its lower-case text.
* A seen word is present if exactly this word is in caption 0 or 1 of the photo. Words of the unseen list are not seen
  labels. A seen label is kept if it is present in at least five training photos.
* An unseen word is present if at least two captions contain its singular or plural. An unseen label is kept if it is
  present in at least five test photos.
* The split depends on the photo's name only (`split_of`).
* `clean` leaves out the seen labels that are the singular or plural of an unseen label.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lesa.annotations import SPLITS
from lesa.errors import LesaError
from lesa.files import numbered_lines, read_lines, sha256
from lesa.labels import Vocabulary, are_twins, other_forms
from lesa.learn.datasets.dataset import Dataset, split_from_present, split_of

Captions = dict[int, frozenset[str]]
"""The captions of one photo: number -> words."""

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
    """Make a data set from captioned photos by the rules at the top of this module.

    Args:
        captions: File with one line `photo#number<TAB>caption` per caption, as `Flickr8k.token.txt`.
        seen_words: List of the words that may become seen labels, one per line, in the order of the labels.
        unseen_words: List of the words that may become unseen labels, one per line.
        photo_names: The photos that exist; captions of others are left out. All photos of the caption file if None.
        clean: Leave out seen labels that are the singular or plural of an unseen label.

    Raises:
        LesaError: a file cannot be read, a caption line is malformed, or no label is present in enough photos.
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
        splits={split: split_from_present(names, present, vocabulary) for split, names in photos_of.items()},
        source={
            "adapter": "captions",
            "clean": clean,
            "twins_left_out": twins,
            "photos_left_out": sorted(captions_by_photo.keys() - set(photos)),
            "sha256": {path.name: sha256(path) for path in paths},
        },
    )


def read_captions(path: Path) -> dict[str, Captions]:
    """Read the captions of each photo as sets of words. The photos are in the order of the file.

    Raises:
        LesaError: the file cannot be read, a line is not `photo#number<TAB>caption`, or a caption appears twice.
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
    """Tell whether the name of a captioned file is a photo of the collection.

    Flickr8k's own file has captions of `2258277193_586949ec62.jpg.1`, which is not one of the photos. So a name that
    ends in a number is not a photo if the names of the photos are not known.
    """
    return name in photo_names if photo_names is not None else not Path(name).suffix[1:].isdigit()


def _noisy_labels(captions: Captions, words: Iterable[str]) -> set[str]:
    """Return the words in one of the first two captions: one or two people mentioned them."""
    return {word for word in words if any(word in captions.get(number, ()) for number in NOISY_CAPTIONS)}


def _agreed_labels(captions: Captions, words: Iterable[str]) -> set[str]:
    """Return the words whose singular or plural is in at least two captions."""
    agreed = set()
    for word in words:
        forms = other_forms(word) | {word}
        if sum(not forms.isdisjoint(caption) for caption in captions.values()) >= AGREEING_CAPTIONS:
            agreed.add(word)
    return agreed


def _keep_frequent(words: Iterable[str], labels_by_photo: Iterable[set[str]], where: str) -> list[str]:
    """Return the words that are present in at least five photos, in their order.

    Raises:
        LesaError: there is no such word.
    """
    photos = Counter(word for labels in labels_by_photo for word in labels)
    kept = [word for word in words if photos[word] >= MIN_PHOTOS]
    if not kept:
        raise LesaError(f"too few {where}: no word is present in {MIN_PHOTOS} of them; give more photos or other words")
    return kept
