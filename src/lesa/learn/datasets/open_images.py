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
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lesa.errors import LesaError
from lesa.files import numbered_lines, replacing, sha256
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import SPLITS, Dataset, Split, Targets, match_photos
from lesa.learn.datasets.sources import SourceFile, require_files

Tensors = dict[str, NDArray[Any]]
About = dict[str, Any]
Parser = Callable[[Path, Callable[[int], None]], tuple[Tensors, About]]

FORMAT = "lesa-open-images-1"
COLUMNS = ["ImageID", "Source", "LabelName", "Confidence"]
# The later versions write 1 as well as 1.0.
PRESENT = {"1": True, "1.0": True, "0": False, "0.0": False}
CHUNK = 20_000
UNSEEN = 400
MIN_ANNOTATED = 75

OFFICIAL_CLASSES, OFFICIAL_TRAINABLE, OFFICIAL_OTHERS = 19_995, 7_186, 2_594
OFFICIAL_PHOTOS = {"train": 5_655_108, "validation": 41_620, "test": 125_436}
OFFICIAL_LINES = {"train": 27_894_289, "validation": 551_390, "test": 1_667_399}


def source_file(path: str, *later: str) -> SourceFile:
    """Return a file of the distribution: its path below the official address, and those of the later versions.

    Each is also found without its version's folder, and by its bare name.
    """
    paths = [path, *later]
    shorter = [part for full in paths for part in (full.partition("/")[2], full.rpartition("/")[2])]
    aliases = dict.fromkeys([*shorter, *later])
    return SourceFile(path, f"https://storage.googleapis.com/openimages/{path}", tuple(aliases))


ANNOTATIONS = {
    "train": source_file(
        "2018_04/train/train-annotations-human-imagelabels.csv",
        "v6/oidv6-train-annotations-human-imagelabels.csv",
        "v7/oidv7-train-annotations-human-imagelabels.csv",
    ),
    "validation": source_file(
        "2018_04/validation/validation-annotations-human-imagelabels.csv",
        "v5/validation-annotations-human-imagelabels.csv",
        "v7/oidv7-val-annotations-human-imagelabels.csv",
    ),
    "test": source_file(
        "2018_04/test/test-annotations-human-imagelabels.csv",
        "v5/test-annotations-human-imagelabels.csv",
        "v7/oidv7-test-annotations-human-imagelabels.csv",
    ),
}
DESCRIPTIONS = source_file(
    "2018_04/class-descriptions.csv",
    "v5/class-descriptions.csv",
    "v6/oidv6-class-descriptions.csv",
    "v7/oidv7-class-descriptions.csv",
)
TRAINABLE = source_file(
    "2018_04/classes-trainable.txt",
    "v5/classes-trainable.txt",
    "v6/oidv6-classes-trainable.txt",
    "v7/oidv7-classes-trainable.txt",
)
FILES = (*ANNOTATIONS.values(), DESCRIPTIONS, TRAINABLE)
"""The files without which nothing can be prepared."""

IMAGE_LISTS = {
    "train": source_file(
        "2018_04/train/train-images-with-labels-with-rotation.csv",
        "v6/oidv6-train-images-with-labels-with-rotation.csv",
    ),
    "validation": source_file("2018_04/validation/validation-images-with-rotation.csv"),
    "test": source_file("2018_04/test/test-images-with-rotation.csv"),
}
"""The official image lists, used where they are present."""

TOP_UNSEEN = SourceFile(
    "2018_04/top_400_unseen.csv",
    "https://github.com/akshitac8/BiAM, datasets/OpenImages/2018_04; the authors' own list",
    ("top_400_unseen.csv",),
)
"""The authors' choice of the unseen labels, used where it is present."""


@dataclass(frozen=True)
class Annotations:
    """The annotations of one split, each place once."""

    images: NDArray[np.uint64]
    """The numbers of the annotated photos (their names are 16 hexadecimal digits), ascending."""
    photos: NDArray[np.int32]
    """Each annotation's place in `images`, ascending."""
    labels: NDArray[np.int32]
    """Each annotation's place in `mids`."""
    present: NDArray[np.bool_]
    mids: list[str]
    lines: int
    """How many lines the file has ..."""
    repeated: int
    """... and how many of them say what another line says ..."""
    contradictory: int
    """... or say absent where another line says present."""
    sha256: str

    def line_counts(self) -> dict[str, int]:
        """Return what became of the file's lines."""
        return {"lines": self.lines, "repeated": self.repeated, "contradictory": self.contradictory}

    def photos_by_label(self) -> dict[str, int]:
        """Return on how many photos each label is annotated, as present or as absent."""
        return dict(zip(self.mids, np.bincount(self.labels, minlength=len(self.mids)).tolist(), strict=True))


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
    others = other_labels(tables["test"], trainable)
    unseen, remarks = choose_unseen(others, descriptions, top_file := TOP_UNSEEN.find(root))
    mids = [*unseen, *trainable]
    names = label_names(mids, descriptions)
    splits = {split: make_split(split, tables[split], mids, listed.get(split)) for split in SPLITS}
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
            *count_remarks(descriptions, trainable, others, unseen),
            *split_remarks(splits, tables, listed),
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


def read_large(
    parsers: dict[Path, Parser], work: Path, progress: Callable[[int, int], None]
) -> dict[Path, dict[str, Any]]:
    """Read each file by its parser, or from what is kept of it; `progress` hears the bytes done and in all."""
    sizes = [path.stat().st_size for path in parsers]
    large: dict[Path, dict[str, Any]] = {}

    def advance(read: int) -> None:
        progress(sum(sizes[: len(large)]) + read, sum(sizes))

    for path, parse in parsers.items():
        large[path] = kept_or_parsed(path, work, parse, advance)
        advance(0)
    return large


def kept_or_parsed(path: Path, work: Path, parse: Parser, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return what `parse` makes of a file; it is kept in `work`, and good as long as the file's size and time are."""
    kept = work / f"{path.name}.safetensors"
    key = f"{FORMAT} {path.stat().st_size} {path.stat().st_mtime_ns}"
    try:
        with safe_open(kept, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") == key:
                names = file.keys()
                return {**json.loads(metadata["about"]), **{name: file.get_tensor(name) for name in names}}
    except (OSError, SafetensorError):
        pass  # Not there, or not whole: read the official file.
    tensors, about = parse(path, progress)
    about["sha256"] = sha256(path)
    with replacing(kept) as temporary:
        temporary.write_bytes(save(tensors, {"key": key, "about": json.dumps(about)}))
    return {**about, **tensors}


def parse_annotations(path: Path, progress: Callable[[int], None]) -> tuple[Tensors, About]:
    """Read the annotations of a file, each place once.

    Raises:
        LesaError: a line is not `ImageID,Source,LabelName,Confidence`, with 16 hexadecimal digits and 0 or 1.
    """
    codes: dict[str, int] = {}
    parts = [(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.bool_))]
    for rows in chunks(path, COLUMNS, progress):
        try:
            images, _, mids, confidences = zip(*rows, strict=True)
            labels = np.array([codes.setdefault(mid, len(codes)) for mid in mids], np.int32)
            present = np.array([PRESENT[confidence] for confidence in confidences])
            parts.append((image_numbers(images), labels, present))
        except (ValueError, KeyError):
            raise malformed(path) from None
    lines = sum(len(part[0]) for part in parts)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    parts.clear()
    tensors, about = merged(columns[0], columns[1], columns[2], len(codes))
    return tensors, {"mids": list(codes), "lines": lines, **about}


def merged(
    images: NDArray[np.uint64], labels: NDArray[np.int32], present: NDArray[np.bool_], label_count: int
) -> tuple[Tensors, About]:
    """Merge the lines that speak of one photo and label, and count them.

    Photo, label and value of a line make one sortable number: what is equal then lies together, present last.
    """
    distinct, photos = np.unique(images, return_inverse=True)
    lines = (photos * label_count + labels) * 2 + present
    del photos
    lines.sort()
    says_new = np.diff(lines, append=-1) != 0
    lines = lines[says_new]
    is_last = np.diff(lines >> 1, append=-1) != 0
    about = {"repeated": int((~says_new).sum()), "contradictory": int((~is_last).sum())}
    lines = lines[is_last]
    places, codes = np.divmod(lines >> 1, max(label_count, 1))
    tensors = {"images": distinct, "photos": places.astype(np.int32), "labels": codes.astype(np.int32)}
    return {**tensors, "present": (lines & 1).astype(np.bool_)}, about


def parse_image_list(path: Path, progress: Callable[[int], None]) -> tuple[Tensors, About]:
    """Read the photos' numbers of an image list, ascending.

    Raises:
        LesaError: a line does not start with 16 hexadecimal digits.
    """
    parts = [np.empty(0, np.uint64)]
    for rows in chunks(path, COLUMNS[:1], progress):
        try:
            parts.append(image_numbers([row[0] for row in rows]))
        except ValueError:
            raise malformed(path, COLUMNS[:1]) from None
    return {"images": np.unique(np.concatenate(parts))}, {}


def image_numbers(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return the photos' names of 16 hexadecimal digits as numbers.

    Raises:
        ValueError: a name is none.
    """
    numbers = np.frombuffer(bytes.fromhex("".join(names)), ">u8")
    if len(numbers) != len(names) or any(len(name) != 16 for name in names):
        raise ValueError("not 16 hexadecimal digits")
    return numbers.astype(np.uint64)


def chunks(path: Path, header: list[str], progress: Callable[[int], None]) -> Iterator[list[list[str]]]:
    """Yield the rows of a CSV file, many at a time, without empty ones; `progress` hears how many bytes are read.

    Raises:
        LesaError: the file is not CSV text, or its first line does not start with `header`.
    """
    with path.open("rb") as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        try:
            if next(reader, [])[: len(header)] != header:
                raise LesaError(f"{path}:1: expected the header `{','.join(header)}`: is it the file of that name?")
            filled = (row for row in reader if row)
            while rows := list(islice(filled, CHUNK)):
                yield rows
                progress(file.tell())
        except UnicodeDecodeError as error:
            raise LesaError(f"{path} is not a text file in UTF-8 ({error}): get it again") from None
        except csv.Error as error:
            raise LesaError(f"{path}:{reader.line_num}: not a CSV file in UTF-8 ({error}): get it again") from None


def malformed(path: Path, header: list[str] = COLUMNS) -> LesaError:
    """Return the error that names the first malformed line of a file that has one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        row = next(row for row in reader if row and not is_well_formed(row, header))
        found = ",".join(row)[:80]
        line = reader.line_num
    expected = (
        "`ImageID,Source,LabelName,Confidence` with confidence 0 or 1" if header == COLUMNS else "an ImageID first"
    )
    return LesaError(
        f"{path}:{line}: expected {expected} (ImageID: 16 hexadecimal digits), found {found!r}: get the file again"
    )


def is_well_formed(row: list[str], header: list[str]) -> bool:
    """Whether a row of a large file can be read."""
    try:
        image_numbers(row[:1])
    except ValueError:
        return False
    return header != COLUMNS or (len(row) == len(COLUMNS) and row[3] in PRESENT)


def read_descriptions(path: Path) -> dict[str, str]:
    """Read each label's description by its MID; the later versions' header is no label.

    Raises:
        LesaError: a line is not `MID,description`, or a MID stands twice.
    """
    descriptions: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            for row in filter(None, reader):
                mid, description = row
                if mid in descriptions:
                    raise ValueError(f"{mid} stands twice")
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


def other_labels(test: Annotations, trainable: list[str]) -> dict[str, int]:
    """Return the labels that are annotated in the test set and are not trainable, with their annotated photos."""
    seen = set(trainable)
    return {mid: count for mid, count in test.photos_by_label().items() if mid not in seen}


def choose_unseen(
    others: dict[str, int], descriptions: Iterable[str], top_file: Path | None
) -> tuple[list[str], list[str]]:
    """Return the unseen labels' MIDs, and remarks on how they were chosen."""
    ruled = sorted(others, key=lambda mid: (-others[mid], mid))[:UNSEEN]
    if top_file is None:
        return ruled, []
    rows = read_row_numbers(top_file)
    for order in (sorted(others), [mid for mid in descriptions if mid in others]):
        chosen = [order[row] for row in rows if row < len(order)]
        counts = [others[mid] for mid in chosen]
        if len(chosen) == len(rows) and counts == sorted(counts, reverse=True):
            return chosen, []
    remark = f"{top_file.name} was not used, the rule was: its row numbers do not list this test set's labels by count"
    return ruled, [remark]


def read_row_numbers(path: Path) -> list[int]:
    """Read a list of distinct row numbers, one a line.

    Raises:
        LesaError: a line is no row number, or one stands twice.
    """
    rows: dict[int, None] = {}
    for where, text in numbered_lines(path):
        line = text.strip()
        if not line.isdecimal() or int(line) in rows:
            raise LesaError(f"{where}: expected a row number, each once, found {line[:80]!r}: correct the line")
        rows[int(line)] = None
    return list(rows)


def label_names(mids: Sequence[str], descriptions: dict[str, str]) -> list[str]:
    """Return the labels' names: their descriptions, with the MID where they share one; the MID where there is none."""
    plain = [descriptions.get(mid) or mid for mid in mids]
    sharing = Counter(plain)
    return [f"{name} ({mid})" if sharing[name] > 1 else name for name, mid in zip(plain, mids, strict=True)]


def are_among(numbers: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each number is in an ascending list: what np.isin does, ten times faster by using the order."""
    places = np.searchsorted(ascending, numbers, side="right")
    return (places > 0) & (ascending[places - 1] == numbers) if len(ascending) else np.zeros(len(numbers), np.bool_)


def make_split(name: str, table: Annotations, mids: Sequence[str], listed: NDArray[np.uint64] | None) -> Split:
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


def count_remarks(
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


def split_remarks(
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
