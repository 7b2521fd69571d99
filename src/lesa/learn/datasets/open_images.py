"""Open Images V4 (2018_04), image labels that people verified -> a data set.

The rules (7,186 seen labels, 400 unseen ones, as in the paper):

* Seen labels are those of `classes-trainable.txt`, in its order. Unseen labels are the 400 with the most annotated test
  photos among the labels that are annotated in the test set and are not trainable; ties go by MID. Where the authors'
  `top_400_unseen.csv` lies with the files, it decides: row numbers, from 0, in their list of those labels. That list is
  published as a pickle only, which is not read: the labels are taken by MID, else as described, and the row numbers
  are used if they then list labels by falling count, which a wrong order would hardly do.
* Confidence 1 is present (+1), 0 is absent (-1), a label without a line is not annotated (0). Lines that say the same
  are one annotation. Where a photo's lines contradict each other, present wins: somebody saw it, and unlike the
  authors' script, where the last line wins, it does not depend on the order of the lines.
* A split's photos are those of its official image list; without one, those with an annotation of the vocabulary.
* A label is named by `class-descriptions.csv`. Where labels share a description each is named `Bat (/m/01h44)`.

The training file has 28 million lines: it is read once, in chunks, and kept as arrays in a work folder.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesa.annotations import SPLITS
from lesa.errors import LesaError
from lesa.files import numbered_lines, sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, match_photos
from lesa.learn.datasets.open_images_files import Annotations, Parser, parse_annotations, parse_image_list, read_large
from lesa.learn.datasets.sources import SourceFile, require_files

UNSEEN = 400
MIN_ANNOTATED = 75

OFFICIAL_CLASSES, OFFICIAL_TRAINABLE, OFFICIAL_OTHERS = 19_995, 7_186, 2_594
OFFICIAL_PHOTOS = {"train": 5_655_108, "validation": 41_620, "test": 125_436}
OFFICIAL_LINES = {"train": 27_894_289, "validation": 551_390, "test": 1_667_399}


def _source_file(path: str, *later: str) -> SourceFile:
    """Return a file of the distribution: its path below the official address, and those of the later versions.

    Each is also found without its version's folder, and by its bare name.
    """
    paths = [path, *later]
    shorter = [part for full in paths for part in (full.partition("/")[2], full.rpartition("/")[2])]
    aliases = dict.fromkeys([*shorter, *later])
    return SourceFile(path, f"https://storage.googleapis.com/openimages/{path}", tuple(aliases))


ANNOTATIONS = {
    "train": _source_file(
        "2018_04/train/train-annotations-human-imagelabels.csv",
        "v6/oidv6-train-annotations-human-imagelabels.csv",
        "v7/oidv7-train-annotations-human-imagelabels.csv",
    ),
    "validation": _source_file(
        "2018_04/validation/validation-annotations-human-imagelabels.csv",
        "v5/validation-annotations-human-imagelabels.csv",
        "v7/oidv7-val-annotations-human-imagelabels.csv",
    ),
    "test": _source_file(
        "2018_04/test/test-annotations-human-imagelabels.csv",
        "v5/test-annotations-human-imagelabels.csv",
        "v7/oidv7-test-annotations-human-imagelabels.csv",
    ),
}
DESCRIPTIONS = _source_file(
    "2018_04/class-descriptions.csv",
    "v5/class-descriptions.csv",
    "v6/oidv6-class-descriptions.csv",
    "v7/oidv7-class-descriptions.csv",
)
TRAINABLE = _source_file(
    "2018_04/classes-trainable.txt",
    "v5/classes-trainable.txt",
    "v6/oidv6-classes-trainable.txt",
    "v7/oidv7-classes-trainable.txt",
)
FILES = (*ANNOTATIONS.values(), DESCRIPTIONS, TRAINABLE)
"""The files without which nothing can be prepared."""

IMAGE_LISTS = {
    "train": _source_file(
        "2018_04/train/train-images-with-labels-with-rotation.csv",
        "v6/oidv6-train-images-with-labels-with-rotation.csv",
    ),
    "validation": _source_file("2018_04/validation/validation-images-with-rotation.csv"),
    "test": _source_file("2018_04/test/test-images-with-rotation.csv"),
}
"""The official image lists, used where they are present."""

TOP_UNSEEN = SourceFile(
    "2018_04/top_400_unseen.csv",
    "https://github.com/akshitac8/BiAM, datasets/OpenImages/2018_04; the authors' own list",
    ("top_400_unseen.csv",),
)
"""The authors' choice of the unseen labels, used where it is present."""


def prepare_open_images(
    root: Path | str,
    work: Path | str,
    photos: Path | str | None = None,
    keep_missing: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Make a data set of Open Images' official files by the rules in this module's first lines.

    Each large file, once read, is kept in `work` and not read again until its size or time changes: an interrupted call
    goes on with the next file. Later versions' file names are accepted; `source["differences"]` says what differs.

    Args:
        root: Folder of the official files, below `2018_04/` as distributed or without it.
        work: Folder for the arrays that were read, about 0.3 GB.
        photos: Folder of the photos, as `train/<id>.jpg`, `train_0/<id>.jpg` (as archived) or `<id>.jpg`; None: the
            photos are not looked for.
        keep_missing: Keep photos that are not in the folder.
        progress: Called with the bytes read and the bytes of all large files.

    Raises:
        LesaError: a file is missing, or a line is malformed.
    """
    root = Path(root)
    *_, descriptions_file, trainable_file = paths = require_files(root, FILES)
    annotation_files = dict(zip(SPLITS, paths, strict=False))
    list_files = {split: path for split, file in IMAGE_LISTS.items() if (path := file.find(root))}
    parsers: dict[Path, Parser] = dict.fromkeys(annotation_files.values(), parse_annotations)
    parsers |= dict.fromkeys(list_files.values(), parse_image_list)
    large = read_large(parsers, Path(work), progress)
    tables = {split: Annotations(**large[path]) for split, path in annotation_files.items()}
    listed = {split: large[path]["images"] for split, path in list_files.items()}

    descriptions, trainable = read_descriptions(descriptions_file), read_mids(trainable_file)
    others = _other_labels(tables["test"], trainable)
    unseen, remarks = _choose_unseen(others, descriptions, top_file := TOP_UNSEEN.find(root))
    mids = [*unseen, *trainable]
    names = _label_names(mids, descriptions)
    splits = {split: _make_split(split, tables[split], mids, listed.get(split)) for split in SPLITS}
    hashes = {path: sha256(path) for path in (descriptions_file, trainable_file, top_file) if path}
    hashes |= {path: found["sha256"] for path, found in large.items()}
    source = {
        "adapter": "open_images",
        "sha256": {path.relative_to(root).as_posix(): value for path, value in hashes.items()},
        "mids": mids,
        "named_with_mid": [name for name, mid in zip(names, mids, strict=True) if name.endswith(f"({mid})")],
        "lines": {split: table.line_counts() for split, table in tables.items()},
        "differences": [
            *remarks,
            *_count_remarks(descriptions, trainable, others, unseen),
            *_split_remarks(splits, tables, listed),
        ],
    }
    vocabulary = Vocabulary(unseen=tuple(names[: len(unseen)]), seen=tuple(names[len(unseen) :]))
    dataset = Dataset("open-images", vocabulary, splits, source)
    return dataset if photos is None else match_photos(dataset, photos, photo_forms, keep_missing)


def photo_forms(name: str) -> list[str]:
    """Return the paths that a photo `train/<id>.jpg` circulates under: plain, as archived, and as tools lay it out.

    The archive `train_0.tar.gz` holds the photos whose ids start with 0.
    """
    split, file = name.split("/")
    part = f"{split}_{file[0]}"
    return [name, file, f"{part}/{file}", f"{split}/{part}/{file}", f"{split}/data/{file}", f"images/{name}"]


def read_descriptions(path: Path) -> dict[str, str]:
    """Read each label's description by its MID; the later versions' header is not a label.

    Raises:
        LesaError: a line is not `MID,description`, or a MID appears twice.
    """
    descriptions: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            for row in filter(None, reader):
                mid, description = row
                if mid in descriptions:
                    raise ValueError(f"{mid} appears twice")
                descriptions[mid] = description.strip()
        except (ValueError, csv.Error) as error:
            where = f"{path}:{reader.line_num}"
            raise LesaError(f"{where}: expected `MID,description`, each MID once ({error}): get it again") from None
    descriptions.pop("LabelName", None)
    return descriptions


def read_mids(path: Path) -> list[str]:
    """Read a list of labels, one MID a line.

    Raises:
        LesaError: a line is no MID, such as `/m/0bt9lr`.
    """
    mids = []
    for where, line in numbered_lines(path):
        mids.append(line.strip())
        if not mids[-1].startswith(("/m/", "/g/")):
            raise LesaError(f"{where}: expected a MID such as `/m/0bt9lr`, found {line[:80]!r}: get it again")
    return mids


def _other_labels(test: Annotations, trainable: list[str]) -> dict[str, int]:
    """Return the labels that are annotated in the test set and are not trainable, with their annotated photos."""
    seen = set(trainable)
    return {mid: count for mid, count in test.photos_by_label().items() if mid not in seen}


def _choose_unseen(
    others: dict[str, int], descriptions: Iterable[str], top_file: Path | None
) -> tuple[list[str], list[str]]:
    """Return the unseen labels' MIDs, and remarks on how they were chosen."""
    ruled = sorted(others, key=lambda mid: (-others[mid], mid))[:UNSEEN]
    if top_file is None:
        return ruled, []
    rows = _read_row_numbers(top_file)
    for order in (sorted(others), [mid for mid in descriptions if mid in others]):
        chosen = [order[row] for row in rows if row < len(order)]
        counts = [others[mid] for mid in chosen]
        if len(chosen) == len(rows) and counts == sorted(counts, reverse=True):
            return chosen, []
    remark = f"{top_file.name} was not used, the rule was: its row numbers do not list this test set's labels by count"
    return ruled, [remark]


def _read_row_numbers(path: Path) -> list[int]:
    """Read a list of distinct row numbers, one per line.

    Raises:
        LesaError: a line is not a row number, or one appears twice.
    """
    rows: dict[int, None] = {}
    for where, text in numbered_lines(path):
        line = text.strip()
        if not line.isdecimal() or int(line) in rows:
            raise LesaError(f"{where}: expected a row number, each once, found {line[:80]!r}: correct the line")
        rows[int(line)] = None
    return list(rows)


def _label_names(mids: Sequence[str], descriptions: dict[str, str]) -> list[str]:
    """Return the labels' names: their descriptions, with the MID where they share one; the MID where there is none."""
    plain = [descriptions.get(mid) or mid for mid in mids]
    sharing = Counter(plain)
    return [f"{name} ({mid})" if sharing[name] > 1 else name for name, mid in zip(plain, mids, strict=True)]


def are_among(numbers: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each number is in an ascending list: what np.isin does, ten times faster by using the order."""
    places = np.searchsorted(ascending, numbers, side="right")
    return (places > 0) & (ascending[places - 1] == numbers) if len(ascending) else np.zeros(len(numbers), np.bool_)


def _make_split(name: str, table: Annotations, mids: Sequence[str], listed: NDArray[np.uint64] | None) -> Split:
    """Return a split of the listed photos; without a list, of those with an annotation of a label among `mids`."""
    column_of = {mid: column for column, mid in enumerate(mids)}
    columns = np.array([column_of.get(mid, -1) for mid in table.mids], np.int32)[table.labels]
    kept = columns >= 0
    images = table.images[np.unique(table.photos[kept])] if listed is None else listed
    kept &= are_among(table.images, images)[table.photos]
    row_of = np.searchsorted(images, table.images).astype(np.int32)
    targets = Targets.from_entries(
        row_of[table.photos[kept]],
        columns[kept],
        np.where(table.present[kept], 1, -1).astype(np.int8),
        shape=(len(images), len(mids)),
        rest=0,
    )
    return Split(tuple(f"{name}/{image:016x}.jpg" for image in images.tolist()), targets)


def _count_remarks(
    descriptions: dict[str, str], trainable: list[str], others: dict[str, int], unseen: list[str]
) -> list[str]:
    """Say which counts of labels are not those of 2018_04, a sentence each."""
    remarks = [
        f"there are {found:,} {what}, officially {official:,}"
        for what, found, official in (
            ("described labels", len(descriptions), OFFICIAL_CLASSES),
            ("trainable labels", len(trainable), OFFICIAL_TRAINABLE),
            ("labels that are annotated in the test set and not trainable", len(others), OFFICIAL_OTHERS),
            ("unseen labels", len(unseen), UNSEEN),
        )
        if found != official
    ]
    if rare := sum(others[mid] < MIN_ANNOTATED for mid in unseen):
        remarks.append(f"{rare:,} unseen labels are annotated on fewer than {MIN_ANNOTATED} test photos")
    if unnamed := sum(not descriptions.get(mid) for mid in (*unseen, *trainable)):
        remarks.append(f"{unnamed:,} labels have no description and are named by their MID")
    return remarks


def _split_remarks(
    splits: dict[str, Split], tables: dict[str, Annotations], listed: dict[str, NDArray[np.uint64]]
) -> list[str]:
    """Say which counts of photos and lines are not those of 2018_04 and what was left out, a sentence each."""
    remarks = []
    for name, split in splits.items():
        table, photos = tables[name], len(split.photos)
        if name not in listed:
            remarks.append(f"{name}: without its image list, its photos are those with an annotation of the vocabulary")
        elif unlisted := int((~are_among(table.images, listed[name])).sum()):
            remarks.append(f"{name}: {unlisted:,} annotated photos are not in its image list and are left out")
        if photos != OFFICIAL_PHOTOS[name]:
            remarks.append(f"{name}: {photos:,} photos, officially {OFFICIAL_PHOTOS[name]:,}")
        if table.lines != OFFICIAL_LINES[name]:
            remarks.append(f"{name}: {table.lines:,} annotation lines, officially {OFFICIAL_LINES[name]:,}")
        if table.contradictory:
            remarks.append(f"{name}: {table.contradictory:,} annotations contradict another, present wins")
    return remarks
