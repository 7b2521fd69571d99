"""The image labels of Open Images V4 (2018_04) that people verified -> a data set.

The rules (7,186 seen labels, 400 unseen ones, as in the paper):

* Seen labels are those of `classes-trainable.txt`, in its order. Candidates for unseen labels are the labels that are
  annotated in the test set and are not trainable. The 400 candidates with the most annotated test photos are the unseen
  labels; equal counts are ordered by MID.
* If the authors' `top_400_unseen.csv` is among the files, it decides. It contains row numbers, from 0, in the authors'
  list of the candidates. That list is published only as a pickle, which is not read. Instead, the candidates are taken
  in the order of their MIDs, and then in the order of `class-descriptions.csv`. The first order in which the row
  numbers list labels by falling count is used; a wrong order would hardly do so.
* Confidence 1 is present (+1), 0 is absent (-1). A label without a line is not annotated (0). Equal lines are one
  annotation. If two lines contradict each other, the label is present: somebody saw it, and the result does not depend
  on the order of the lines. In the authors' script the last line wins.
* The photos of a split are those of its official image list. Without the list, they are the photos with an annotation
  of a label in the vocabulary.
* `class-descriptions.csv` names the labels. Labels with the same description have names such as `Bat (/m/01h44)`.

The training file has 28 million lines. It is read once, in chunks, and kept as arrays in a work folder.
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
from lesa.learn.datasets.dataset import Dataset, Split, Targets
from lesa.learn.datasets.official_files import SourceFile, require_files
from lesa.learn.datasets.open_images_files import Annotations, Parser, parse_annotations, parse_image_list, read_large

UNSEEN = 400
MIN_ANNOTATED = 75

OFFICIAL_CLASSES, OFFICIAL_TRAINABLE, OFFICIAL_OTHERS = 19_995, 7_186, 2_594
OFFICIAL_PHOTOS = {"train": 5_655_108, "validation": 41_620, "test": 125_436}
OFFICIAL_LINES = {"train": 27_894_289, "validation": 551_390, "test": 1_667_399}


def _source_file(path: str, *later: str) -> SourceFile:
    """Return an official file: its path below the official address, and its paths in later versions.

    Each file is also found without the folder of its version, and by its name alone.
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
"""The required files."""

IMAGE_LISTS = {
    "train": _source_file(
        "2018_04/train/train-images-with-labels-with-rotation.csv",
        "v6/oidv6-train-images-with-labels-with-rotation.csv",
    ),
    "validation": _source_file("2018_04/validation/validation-images-with-rotation.csv"),
    "test": _source_file("2018_04/test/test-images-with-rotation.csv"),
}
"""The official image lists; used if they exist."""

TOP_UNSEEN = SourceFile(
    "2018_04/top_400_unseen.csv",
    "https://github.com/akshitac8/BiAM, datasets/OpenImages/2018_04; the authors' own list",
    ("top_400_unseen.csv",),
)
"""The authors' choice of the unseen labels; used if it exists."""


def prepare_open_images(
    root: Path | str,
    work: Path | str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Make a data set from Open Images' official files by the rules at the top of this module.

    The content of each large file is kept in `work`, and the file is not read again until its size or time changes. So
    after an interruption the next call continues with the next file. File names of later versions are accepted;
    `source["differences"]` names the differences.

    Args:
        root: Folder of the official files, with or without the official `2018_04/`.
        work: Folder for the arrays that were read, about 0.3 GB.
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
    return Dataset("open-images", vocabulary, splits, source)


def open_images_paths(name: str) -> list[str]:
    """Return the paths that a photo `train/<id>.jpg` may have: plain, as in the archives, and as tools write it.

    The archive `train_0.tar.gz` contains the photos whose ids start with 0.
    """
    split, file = name.split("/")
    part = f"{split}_{file[0]}"
    return [name, file, f"{part}/{file}", f"{split}/{part}/{file}", f"{split}/data/{file}", f"images/{name}"]


def read_descriptions(path: Path) -> dict[str, str]:
    """Read the descriptions of the labels by MID. Later versions have a header, which is left out.

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
    """Read a list of labels, one MID per line.

    Raises:
        LesaError: a line is not a MID such as `/m/0bt9lr`.
    """
    mids = []
    for where, line in numbered_lines(path):
        mids.append(line.strip())
        if not mids[-1].startswith(("/m/", "/g/")):
            raise LesaError(f"{where}: expected a MID such as `/m/0bt9lr`, found {line[:80]!r}: get it again")
    return mids


def _other_labels(test: Annotations, trainable: list[str]) -> dict[str, int]:
    """Return the labels that are annotated in the test set and are not trainable -> number of annotated photos."""
    seen = set(trainable)
    return {mid: count for mid, count in test.photos_by_label().items() if mid not in seen}


def _choose_unseen(
    others: dict[str, int], descriptions: Iterable[str], top_file: Path | None
) -> tuple[list[str], list[str]]:
    """Return the MIDs of the unseen labels, and remarks on the choice."""
    ruled = sorted(others, key=lambda mid: (-others[mid], mid))[:UNSEEN]
    if top_file is None:
        return ruled, []
    rows = _read_row_numbers(top_file)
    for order in (sorted(others), [mid for mid in descriptions if mid in others]):
        chosen = [order[row] for row in rows if row < len(order)]
        counts = [others[mid] for mid in chosen]
        if len(chosen) == len(rows) and counts == sorted(counts, reverse=True):
            return chosen, []
    remark = f"{top_file.name} was not used: its row numbers do not list the labels of this test set by count"
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
    """Return the names of the labels: the description, with the MID if others share it, or the MID alone."""
    plain = [descriptions.get(mid) or mid for mid in mids]
    sharing = Counter(plain)
    return [f"{name} ({mid})" if sharing[name] > 1 else name for name, mid in zip(plain, mids, strict=True)]


def are_among(numbers: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which numbers are in an ascending list: as np.isin, but ten times faster because of the order."""
    places = np.searchsorted(ascending, numbers, side="right")
    return (places > 0) & (ascending[places - 1] == numbers) if len(ascending) else np.zeros(len(numbers), np.bool_)


def _make_split(name: str, table: Annotations, mids: Sequence[str], listed: NDArray[np.uint64] | None) -> Split:
    """Return a split of the listed photos; without a list, of the photos with an annotation of a label in `mids`."""
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
    """Return one sentence for each count of labels that differs from 2018_04."""
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
    """Return one sentence for each count of photos or lines that differs from 2018_04, and for what was left out."""
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
