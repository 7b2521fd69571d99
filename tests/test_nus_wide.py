"""NUS-WIDE's official files become the standard, the clean and the multi-label data set; unclear copies are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.nus_wide_tree import CONCEPTS, NO_TAGS, TWINS, build_nus_wide, write_lines
from lesa.errors import LesaError
from lesa.files import read_lines, sha256
from lesa.labels import are_twins
from lesa.learn.datasets import nus_wide
from lesa.learn.datasets.dataset import match_photos, read_dataset, write_dataset
from lesa.learn.datasets.nus_wide import BLOCK, FILES, nus_wide_paths, prepare_nus_wide

PHOTOS = "ImageList/Imagelist.txt"
TRAIN = "ImageList/TrainImagelist.txt"
TEST = "ImageList/TestImagelist.txt"
TAG_LIST = "NUS_WID_Tags/TagList1k.txt"
ALL_TAGS = "NUS_WID_Tags/AllTags1k.txt"
CONCEPT_LIST = "ConceptsList/Concepts81.txt"
LABELS = "Groundtruth/AllLabels"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that no test changes."""
    root = tmp_path_factory.mktemp("nus-wide")
    build_nus_wide(root, with_photos=True)
    return root


@pytest.fixture
def root(official: Path, tmp_path: Path) -> Path:
    """A tree without photos, to be changed."""
    shutil.copytree(official, tmp_path / "nus-wide", ignore=shutil.ignore_patterns("Flickr"))
    return tmp_path / "nus-wide"


def lines_of(path: Path) -> list[str]:
    return [line.replace("\\", "/") for line in path.read_bytes().decode().split("\r\n")[:-1]]


def expected_targets(root: Path, photos: tuple[str, ...], unseen: list[str], seen: list[str]) -> np.ndarray:
    """Read -1 and +1 with NumPy's own text reader, column by column and photo by photo."""
    rows = {name: row for row, name in enumerate(lines_of(root / PHOTOS))}
    tags_NT = np.loadtxt(root / ALL_TAGS, dtype=np.int8)
    column = {tag: index for index, tag in enumerate(lines_of(root / TAG_LIST))}
    human = [np.loadtxt(root / LABELS / f"Labels_{name}.txt", dtype=np.int8) for name in unseen]
    all_NC = np.stack([*human, *(tags_NT[:, column[tag]] for tag in seen)], axis=1)
    return 2 * all_NC[[rows[name] for name in photos]] - 1


# ---- the three kinds


def test_the_fixture_is_in_the_official_format(official: Path) -> None:
    for name in (PHOTOS, TRAIN, TEST, TAG_LIST, ALL_TAGS, CONCEPT_LIST, f"{LABELS}/Labels_zebra.txt"):
        content = (official / name).read_bytes()
        assert content.endswith(b"\r\n")
        assert content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r")
    assert (official / PHOTOS).read_bytes().startswith(b"actor\\0001_2124494179.jpg\r\n")
    assert {len(line) for line in (official / ALL_TAGS).read_bytes().split(b"\t\r\n")[:-1]} == {1999}
    with Image.open(official / "Flickr" / "actor" / "0001_2124494179.jpg") as photo:
        assert photo.format == "JPEG"


def test_standard_has_tags_as_seen_labels_and_concepts_as_unseen_ones(official: Path) -> None:
    dataset = prepare_nus_wide(official)
    seen = [tag for tag in lines_of(official / TAG_LIST) if tag not in CONCEPTS]
    assert dataset.name == "nus-wide"
    assert dataset.vocabulary.unseen == tuple(CONCEPTS)
    assert dataset.vocabulary.seen == tuple(seen)
    assert len(seen) == 925
    for split in dataset.splits.values():
        expected_NC = expected_targets(official, split.photos, CONCEPTS, seen)
        assert (expected_NC == 1).any()
        np.testing.assert_array_equal(split.targets.dense(), expected_NC)


def test_validation_is_the_first_training_photos(official: Path) -> None:
    dataset = prepare_nus_wide(official)
    train = lines_of(official / TRAIN)
    assert len(train) == 14
    assert dataset.splits["validation"].photos == tuple(train[:7])
    assert dataset.splits["train"].photos == tuple(train[7:])
    assert dataset.splits["test"].photos == tuple(lines_of(official / TEST))
    assert all(photo.count("/") == 1 for split in dataset.splits.values() for photo in split.photos)


def test_validation_is_no_more_than_the_protocol_takes(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nus_wide, "VALIDATION", 3)
    splits = prepare_nus_wide(official).splits
    assert splits["validation"].photos + splits["train"].photos == tuple(lines_of(official / TRAIN))
    assert [len(split.photos) for split in splits.values()] == [11, 3, 10]


def test_clean_leaves_out_the_twins(official: Path) -> None:
    standard, clean = prepare_nus_wide(official), prepare_nus_wide(official, kind="clean")
    assert clean.name == "nus-wide-clean"
    assert set(clean.source["twins_left_out"]) == set(TWINS)
    assert standard.source["twins_left_out"] == []
    assert clean.vocabulary.unseen == standard.vocabulary.unseen
    assert clean.vocabulary.seen == tuple(tag for tag in standard.vocabulary.seen if tag not in TWINS)
    split = clean.split("test")
    expected_NC = expected_targets(official, split.photos, CONCEPTS, list(clean.vocabulary.seen))
    np.testing.assert_array_equal(split.targets.dense(), expected_NC)


def test_multi_label_has_the_concepts_as_seen_labels_and_no_photo_without_one(root: Path) -> None:
    standard = prepare_nus_wide(root)
    shutil.rmtree(root / "NUS_WID_Tags")
    dataset = prepare_nus_wide(root, kind="multi-label")
    assert dataset.name == "nus-wide-multi-label"
    assert (dataset.vocabulary.unseen, dataset.vocabulary.seen) == ((), tuple(CONCEPTS))
    assert sum(dataset.source["photos_without_label"].values()) == 6
    for name, split in dataset.splits.items():
        before = standard.splits[name]
        labels_NC = before.targets.dense(columns=slice(0, 81))
        kept = (labels_NC == 1).any(axis=1)
        assert split.photos == tuple(photo for photo, keep in zip(before.photos, kept, strict=True) if keep)
        assert dataset.source["photos_without_label"][name] == len(before.photos) - len(split.photos)
        np.testing.assert_array_equal(split.targets.dense(), labels_NC[kept])


def test_another_kind_is_refused(official: Path) -> None:
    with pytest.raises(LesaError, match="not prepared as 'claen'; did you mean 'clean'"):
        prepare_nus_wide(official, kind="claen")


def test_the_data_set_can_be_written(official: Path, tmp_path: Path) -> None:
    dataset = match_photos(prepare_nus_wide(official), official / "Flickr", nus_wide_paths)
    write_dataset(dataset, tmp_path / "prepared")
    back = read_dataset(tmp_path / "prepared")
    assert (back.vocabulary, back.source) == (dataset.vocabulary, dataset.source)
    np.testing.assert_array_equal(back.split("test").targets.dense(), dataset.split("test").targets.dense())


def test_more_photos_than_a_block_keep_their_order(tmp_path: Path) -> None:
    build_nus_wide(tmp_path, photos=BLOCK + 3, seed=1)
    dataset = prepare_nus_wide(tmp_path)
    split = dataset.split("test")
    expected_NC = expected_targets(tmp_path, split.photos, CONCEPTS, list(dataset.vocabulary.seen))
    np.testing.assert_array_equal(split.targets.dense(), expected_NC)


# ---- copies


def test_other_line_ends_blanks_and_a_blank_last_line_make_no_difference(root: Path) -> None:
    expected = prepare_nus_wide(root)
    for path in root.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\t\r\n", b"\r\n").replace(b"\t", b" ").replace(b"\r", b"") + b"\n")
    dataset = prepare_nus_wide(root)
    assert dataset.vocabulary == expected.vocabulary
    assert dataset.source["differences"] == expected.source["differences"]
    for name, split in dataset.splits.items():
        assert split.photos == expected.splits[name].photos
        np.testing.assert_array_equal(split.targets.dense(), expected.splits[name].targets.dense())


def test_files_are_found_where_copies_have_them(root: Path) -> None:
    expected = prepare_nus_wide(root).source["sha256"]
    for file in FILES:
        (root / file.name).rename(root / Path(file.name).name)
    found = prepare_nus_wide(root).source["sha256"]
    assert set(found) == {
        Path(name).name if "Labels_" not in name else f"AllLabels/{Path(name).name}" for name in expected
    }
    assert sorted(found.values()) == sorted(expected.values())
    assert len(found) == 6 + 81
    assert found["AllTags1k.txt"] == sha256(root / "AllTags1k.txt")
    (root / "ImageList").rmdir()
    (root / "Imagelist.txt").rename(root / "ImageList.txt")
    assert "ImageList.txt" in prepare_nus_wide(root).source["sha256"]


def test_missing_files_are_named_with_where_they_are_distributed(root: Path) -> None:
    (root / ALL_TAGS).unlink()
    (root / CONCEPT_LIST).unlink()
    with pytest.raises(LesaError, match=r"lacks 2 of 7 files(.|\n)*Concepts81.txt  \(ConceptsList.zip(.|\n)*AllTags1k"):
        prepare_nus_wide(root)


def test_missing_labels_are_named(root: Path) -> None:
    (root / LABELS / "Labels_zebra.txt").unlink()
    with pytest.raises(LesaError, match=r"AllLabels lacks 1 of 81 files(.|\n)*Labels_zebra.txt  \(Groundtruth.zip"):
        prepare_nus_wide(root)


def test_every_count_that_is_not_the_official_one_is_said(root: Path) -> None:
    assert prepare_nus_wide(root).source["differences"] == [
        "Photos: 24 instead of the official 269,648.",
        "Training photos: 14 instead of the official 161,789.",
        "Test photos: 10 instead of the official 107,859.",
        "Validation photos: 7 instead of the official 5,000.",
    ]
    write_lines(root / TEST, lines_of(root / TEST)[:-2])
    write_lines(root / CONCEPT_LIST, [name for name in CONCEPTS if name not in ("zebra", NO_TAGS[0])])
    tags = lines_of(root / TAG_LIST)
    write_lines(root / TAG_LIST, tags[:-1])
    write_lines(root / ALL_TAGS, [line[:-2] for line in lines_of(root / ALL_TAGS)])
    seen = len(set(tags[:-1]) - set(CONCEPTS)) + 1
    assert prepare_nus_wide(root).source["differences"][2:] == [
        "Test photos: 8 instead of the official 107,859.",
        "Validation photos: 7 instead of the official 5,000.",
        "Concepts: 79 instead of the official 81.",
        "Tags: 999 instead of the official 1,000.",
        *([f"Tags that are not concepts: {seen} instead of the official 925."] if seen != 925 else []),
        "Concepts that are not tags: 5 instead of the official 6.",
        "Photos of Imagelist.txt in neither split: 2 instead of the official 0.",
    ]


# ---- photos


def test_photos_in_the_folders_of_their_queries_keep_their_names(official: Path) -> None:
    dataset = match_photos(prepare_nus_wide(official), official / "Flickr", nus_wide_paths)
    assert dataset.source["missing_photos"] == []
    assert {name: split.photos for name, split in dataset.splits.items()} == {
        name: split.photos for name, split in prepare_nus_wide(official).splits.items()
    }


def test_photos_in_one_folder_are_named_as_they_lie_there(official: Path, tmp_path: Path) -> None:
    for path in (official / "Flickr").rglob("*.jpg"):
        shutil.copy(path, tmp_path / path.name)
    dataset, listed = match_photos(prepare_nus_wide(official), tmp_path, nus_wide_paths), prepare_nus_wide(official)
    for name, split in dataset.splits.items():
        assert split.photos == tuple(photo.split("/")[1] for photo in listed.splits[name].photos)
        np.testing.assert_array_equal(split.targets.dense(), listed.splits[name].targets.dense())


def test_photos_that_are_not_there_are_listed_and_left_out_or_kept(official: Path, tmp_path: Path) -> None:
    shutil.copytree(official / "Flickr", tmp_path / "Flickr")
    gone = lines_of(official / TRAIN)[0], lines_of(official / TEST)[3]
    for photo in gone:
        (tmp_path / "Flickr" / photo).unlink()
    dataset = match_photos(prepare_nus_wide(official), tmp_path / "Flickr", nus_wide_paths)
    kept = match_photos(prepare_nus_wide(official), tmp_path / "Flickr", nus_wide_paths, keep_missing=True)
    assert dataset.source["missing_photos"] == kept.source["missing_photos"] == list(gone)
    assert [len(split.photos) for split in dataset.splits.values()] == [7, 6, 9]
    assert [len(split.photos) for split in kept.splits.values()] == [7, 7, 10]
    assert kept.splits["validation"].photos[0] == gone[0]
    np.testing.assert_array_equal(
        dataset.split("test").targets.dense(), np.delete(kept.split("test").targets.dense(), 3, axis=0)
    )


def test_labels_are_enough_and_a_folder_without_any_photo_is_refused(root: Path) -> None:
    assert "missing_photos" not in prepare_nus_wide(root).source
    with pytest.raises(LesaError, match="none of the 24 photos is in"):
        match_photos(prepare_nus_wide(root), root, nus_wide_paths)


# ---- what would make a row unclear


def change(path: Path, line: int, old: str, new: str) -> None:
    """Replace a part of a line, counted from 1, and leave the bytes of the others as they are."""
    lines = path.read_bytes().decode().split("\r\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_bytes("\r\n".join(lines).encode())


@pytest.mark.parametrize(
    ("name", "line", "old", "new", "message"),
    [
        (PHOTOS, 2, "0002_2124494180", "0001_2124494179", r"Imagelist\.txt:2: 'actor/0001_.*twice, first in .*\.txt:1"),
        (
            PHOTOS,
            2,
            "actor\\0002_2124494180",
            "actor/0001_2124494179",
            r"Imagelist\.txt:2: 'actor/0001_.* appears twice",
        ),
        (PHOTOS, 2, "actor\\", "..\\..\\", r"Imagelist\.txt:2: expected a photo such as .*, found '\.\./\.\./0002"),
        (PHOTOS, 2, "actor\\", "C:\\actor\\", r"Imagelist\.txt:2: expected a photo such as"),
        (
            TRAIN,
            3,
            ".jpg",
            "9.jpg",
            r"TrainImagelist\.txt:3: .*9\.jpg is not in .*Imagelist\.txt: take both lists from",
        ),
        (TEST, 3, ".jpg", "9.jpg", r"TestImagelist\.txt:3: .*9\.jpg is not in"),
        (CONCEPT_LIST, 2, "animal", "airport", r"Concepts81\.txt:2: 'airport' appears twice"),
        (
            ALL_TAGS,
            4,
            "0\t",
            "",
            r"AllTags1k\.txt:4: expected .* 1,000 tags of TagList1k\.txt, found 999 columns: take",
        ),
        (ALL_TAGS, 4, "0\t", "0\t1\t", r"AllTags1k\.txt:4: .*found 1,001 columns"),
        (ALL_TAGS, 4, "0\t", "2\t", r"AllTags1k\.txt:4: .*found b'2'"),
        (ALL_TAGS, 4, "0\t0\t", "00\t\t", r"AllTags1k\.txt:4: .*found b'00'"),
        (f"{LABELS}/Labels_lake.txt", 5, "0", "-1130179", r"Labels_lake\.txt:5: expected 0 or 1, found b'-1130179'"),
    ],
)
def test_a_line_that_makes_a_row_unclear_is_named(
    root: Path, name: str, line: int, old: str, new: str, message: str
) -> None:
    change(root / name, line, old, new)
    with pytest.raises(LesaError, match=message):
        prepare_nus_wide(root)


def test_a_tag_that_stands_twice_is_named(root: Path) -> None:
    tags = lines_of(root / TAG_LIST)
    write_lines(root / TAG_LIST, [*tags[:-1], tags[0]])
    with pytest.raises(LesaError, match=r"TagList1k\.txt:1000: .* appears twice"):
        prepare_nus_wide(root)


def test_a_photo_in_both_splits_is_named(root: Path) -> None:
    write_lines(root / TEST, [*lines_of(root / TEST), lines_of(root / TRAIN)[1]])
    with pytest.raises(
        LesaError, match=r"TestImagelist\.txt:11: .* is also a training photo .*TrainImagelist\.txt:2\)"
    ):
        prepare_nus_wide(root)


@pytest.mark.parametrize("name", [ALL_TAGS, f"{LABELS}/Labels_zebra.txt"])
def test_another_number_of_lines_is_refused(root: Path, name: str) -> None:
    lines = (root / name).read_bytes().split(b"\r\n")[:-1]
    (root / name).write_bytes(b"\r\n".join(lines[:-1]))
    with pytest.raises(
        LesaError, match=r"txt:23: expected 24 lines, one for each photo of Imagelist.txt, found 23: take"
    ):
        prepare_nus_wide(root)
    (root / name).write_bytes(b"\r\n".join([*lines, lines[0]]))
    with pytest.raises(LesaError, match=r"txt:25: expected 24 lines, .*found 25"):
        prepare_nus_wide(root)


@pytest.mark.parametrize("name", [TRAIN, CONCEPT_LIST, TAG_LIST, ALL_TAGS, f"{LABELS}/Labels_zebra.txt"])
def test_an_empty_file_is_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"")
    with pytest.raises(LesaError, match=rf"{Path(name).name}"):
        prepare_nus_wide(root)


# ---- the official lists


@pytest.mark.shared
def test_the_official_lists_have_their_counts(shared: Path, root: Path) -> None:
    shutil.copy(shared / "lists" / "nus_wide_TagList1k.txt", root / TAG_LIST)
    shutil.copy(shared / "lists" / "nus_wide_Concepts81.txt", root / CONCEPT_LIST)
    standard, clean = prepare_nus_wide(root), prepare_nus_wide(root, kind="clean")
    assert standard.vocabulary.unseen == tuple(CONCEPTS)
    assert (len(standard.vocabulary.seen), len(clean.vocabulary.seen)) == (925, 895)
    assert clean.source["twins_left_out"] == TWINS
    assert [text.split(":")[0] for text in standard.source["differences"]] == [
        "Photos",
        "Training photos",
        "Test photos",
        "Validation photos",
    ]
    tags = read_lines(shared / "lists" / "nus_wide_TagList1k.txt")
    assert sorted(set(CONCEPTS) - set(tags)) == NO_TAGS
    assert len({name for name in CONCEPTS if any(are_twins(tag, name) for tag in standard.vocabulary.seen)}) == 30
