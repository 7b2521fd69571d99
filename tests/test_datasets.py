"""Label files become the data set that their rules promise, and a data set folder is whole or refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa.errors import LesaError
from lesa.files import read_json, read_lines, write_json
from lesa.labels import Vocabulary, are_twins, other_forms
from lesa.learn.datasets.captions import prepare_captions
from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, split_of, write_dataset
from lesa.learn.datasets.folder import prepare_folder

# ---- targets and data set folders


def dense_example() -> np.ndarray:
    return np.array([[1, -1, -1], [-1, 1, 1], [-1, -1, -1]], dtype=np.int8)


@given(st.lists(st.sets(st.integers(0, 5)), max_size=6))
def test_targets_from_present_labels_are_dense_plus_and_minus_one(present: list[set[int]]) -> None:
    targets = Targets.from_present([list(columns) for columns in present], labels=6)
    expected = np.array([[1 if c in columns else -1 for c in range(6)] for columns in present]).reshape(-1, 6)
    dense_NC = targets.dense()
    assert dense_NC.dtype == np.int8
    np.testing.assert_array_equal(dense_NC, expected)
    np.testing.assert_array_equal(targets.dense(columns=slice(2, 4)), expected[:, 2:4])
    assert targets.shape == (len(present), 6)
    assert targets.present_per_photo() == pytest.approx((expected > 0).sum() / len(present) if present else 0)


def test_chosen_rows_of_targets_come_in_the_order_asked() -> None:
    targets = Targets.from_present([[0], [1, 2], []], labels=3)
    np.testing.assert_array_equal(targets.dense(np.array([2, 0, 0])), dense_example()[[2, 0, 0]])


def example() -> Dataset:
    vocabulary = Vocabulary(unseen=("zebra",), seen=("dog", "cat"))
    splits = {
        "train": Split(("a/1.jpg", "ü.jpg", "3.jpg"), Targets.from_present([[0], [1, 2], []], labels=3)),
        "test": Split((), Targets.from_present([], labels=3)),
    }
    return Dataset("example", vocabulary, splits, {"adapter": "none"})


def test_a_data_set_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_dataset(example(), tmp_path)
    back = read_dataset(tmp_path)
    assert (back.name, back.vocabulary, back.source) == ("example", example().vocabulary, {"adapter": "none"})
    assert {name: split.photos for name, split in back.splits.items()} == {
        "train": ("a/1.jpg", "ü.jpg", "3.jpg"),
        "test": (),
    }
    np.testing.assert_array_equal(back.split("train").targets.dense(), dense_example())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "targets.safetensors"]


def test_an_empty_or_unknown_split_is_named() -> None:
    with pytest.raises(LesaError, match="split 'test' of data set 'example' holds no photo"):
        example().split("test")
    with pytest.raises(LesaError, match="has no split 'trian'; did you mean 'train'"):
        example().split("trian")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="is not a prepared data set"):
        read_dataset(tmp_path)
    for content in ({"format": "lesa-dataset-0"}, [1]):
        write_json(tmp_path / "dataset.json", content)
        with pytest.raises(LesaError, match="prepare it again"):
            read_dataset(tmp_path)


def test_targets_of_another_data_set_are_refused(tmp_path: Path) -> None:
    write_dataset(example(), tmp_path / "a")
    other = example()
    other.splits["train"] = Split(other.splits["train"].photos, Targets.from_present([[], [], [1]], labels=3))
    write_dataset(other, tmp_path / "b")
    (tmp_path / "b" / "targets.safetensors").replace(tmp_path / "a" / "targets.safetensors")
    with pytest.raises(LesaError, match=r"is damaged .*prepare it again"):
        read_dataset(tmp_path / "a")
    (tmp_path / "a" / "targets.safetensors").unlink()
    with pytest.raises(LesaError, match="is damaged"):
        read_dataset(tmp_path / "a")


@pytest.mark.parametrize("key", ["unseen", "photos", "rest", "targets"])
def test_a_damaged_description_is_refused(tmp_path: Path, key: str) -> None:
    write_dataset(example(), tmp_path)
    about = read_json(tmp_path / "dataset.json")
    for value in (None, 3):
        write_json(tmp_path / "dataset.json", {**about, key: value})
        with pytest.raises(LesaError, match="is damaged"):
            read_dataset(tmp_path)


def test_counts_tell_photos_labels_and_present_labels_per_photo() -> None:
    assert counts(example())["train"] == {
        "photos": 3,
        "seen labels": 2,
        "seen present per photo": 0.667,
        "unseen labels": 1,
        "unseen present per photo": 0.333,
    }
    assert counts(example())["test"]["seen present per photo"] == 0


def test_the_split_follows_from_the_name() -> None:
    names = [f"{i}.jpg" for i in range(3000)]
    draws = [int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 1000 for name in names]
    expected = ["validation" if draw < 50 else "train" if draw < 600 else "test" for draw in draws]
    assert [split_of(name) for name in names] == expected


# ---- captions


@pytest.mark.parametrize(
    ("singular", "plural"),
    [("dog", "dogs"), ("sky", "skies"), ("bus", "buses"), ("glass", "glasses"), ("box", "boxes")],
)
def test_singular_and_plural_are_twins_both_ways(singular: str, plural: str) -> None:
    assert are_twins(singular, plural)
    assert are_twins(plural, singular)
    assert not are_twins(singular, "road")


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("skies", {"sky"}),
        ("sky", {"skys", "skies"}),
        ("churches", {"church"}),
        ("church", {"churchs", "churches"}),
        ("horses", {"hors"}),  # the benchmark's rule: `es` after `s` is dropped
        ("birds", {"bird"}),
        ("grass", {"grasss", "grasses"}),
        ("tree", {"trees"}),
    ],
)
def test_the_other_forms_of_a_word(word: str, others: set[str]) -> None:
    assert other_forms(word) == others


def names_of(split: str, number: int) -> list[str]:
    """Return the first names of photos that the rule puts into a split."""
    return [name for name in (f"{i}.jpg" for i in range(2000)) if split_of(name) == split][:number]


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """A caption file and word lists in the official formats, where every rule has a case."""
    lines = []
    for name in [*names_of("train", 5), *names_of("test", 5), *names_of("validation", 1)]:
        captions = [
            "A black Dog on the road .",
            "dogs run , don't they ?",
            "The road is grey; two boats",
            "a Boat at sea, a zebra",
            "sand",
        ]
        lines += [f"{name}#{i}\t{caption}\n" for i, caption in enumerate(captions)]
    lines += [f"{names_of('train', 6)[5]}#0\ta rare sunset\n", "9.jpg.1#0\ta black dog\n"]
    (tmp_path / "Pictures.token.txt").write_text("".join(lines))
    tags = ["road", "black", "dog", "boats", "boat", "sand", "sunset", "run", "don"]
    (tmp_path / "tags.txt").write_bytes("".join(f"{tag}\t\r\n" for tag in tags).encode())
    (tmp_path / "concepts.txt").write_bytes(b"dogs\r\nboats\r\nzebra\r\nsand\r\n")
    return tmp_path


def prepare(folder: Path, **options: object) -> Dataset:
    paths = folder / "Pictures.token.txt", folder / "tags.txt", folder / "concepts.txt"
    return prepare_captions(*paths, **options)  # type: ignore[arg-type]


def test_seen_labels_stand_in_two_captions_and_unseen_ones_are_agreed(flickr: Path) -> None:
    dataset = prepare(flickr)
    # "boats" and "sand" are concepts and no tags; "boat" is said in captions 0 or 1 nowhere; "sunset" once only.
    assert dataset.vocabulary == Vocabulary(unseen=("dogs", "boats"), seen=("road", "black", "dog", "run", "don"))
    assert dataset.name == "pictures"
    np.testing.assert_array_equal(dataset.split("test").targets.dense(), np.ones((5, 7)))
    train_NC = dataset.split("train").targets.dense()
    np.testing.assert_array_equal(train_NC[:5], np.ones((5, 7)))
    np.testing.assert_array_equal(train_NC[5], -np.ones(7))


def test_the_clean_variant_leaves_out_twins(flickr: Path) -> None:
    dataset = prepare(flickr, clean=True)
    assert dataset.vocabulary == Vocabulary(unseen=("dogs", "boats"), seen=("road", "black", "run", "don"))
    assert dataset.name == "pictures-clean"
    assert dataset.source["twins_left_out"] == ["dog"]


def test_what_is_no_photo_is_left_out_and_listed(flickr: Path) -> None:
    assert prepare(flickr).source["photos_left_out"] == ["9.jpg.1"]
    some = [*names_of("train", 5), *names_of("test", 5)]
    dataset = prepare(flickr, photo_names=some)
    assert [photo for split in dataset.splits.values() for photo in split.photos] == some
    assert dataset.source["photos_left_out"] == sorted([names_of("train", 6)[5], *names_of("validation", 1), "9.jpg.1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg A dog", r"token\.txt:2: expected `photo#number<TAB>caption`, found 'a.jpg A dog'"),
        ("a.jpg#x\tA dog", r"token\.txt:2: expected"),
        ("\ta dog", r"token\.txt:2: expected"),
        ("1.jpg#0\tA dog", r"token\.txt:2: caption 0 of '1\.jpg' appears twice"),
    ],
)
def test_a_malformed_caption_line_is_named(flickr: Path, line: str, message: str) -> None:
    (flickr / "Pictures.token.txt").write_text(f"1.jpg#0\ta cat\n{line}\n")
    with pytest.raises(LesaError, match=message):
        prepare(flickr)


def test_files_that_cannot_be_used_are_named(flickr: Path) -> None:
    (flickr / "tags.txt").write_text("unheard\n")
    with pytest.raises(LesaError, match=r"too few training photos for .*tags\.txt"):
        prepare(flickr)
    (flickr / "Pictures.token.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(LesaError, match="is not a UTF-8 text file"):
        prepare(flickr)
    (flickr / "Pictures.token.txt").unlink()
    with pytest.raises(LesaError, match=r"Pictures\.token\.txt does not exist"):
        prepare(flickr)


TWINS = "bird boat building car dogs flag flower horse mountains rock signs streets toys trees"


@pytest.mark.shared
def test_the_benchmark_has_its_counts(shared: Path) -> None:
    lists = shared / "lists" / "nus_wide_TagList1k.txt", shared / "lists" / "nus_wide_Concepts81.txt"
    captions = shared / "data" / "flickr8k" / "Flickr8k.token.txt"
    dataset, clean = (prepare_captions(captions, *lists, clean=clean) for clean in (False, True))
    table = counts(dataset)
    assert {name: row["photos"] for name, row in table.items()} == {"train": 4510, "validation": 394, "test": 3187}
    photos = {photo for split in dataset.splits.values() for photo in split.photos}
    assert photos == {path.name for path in (captions.parent / "Images").iterdir()}
    assert len(photos) == 8091
    assert (len(dataset.vocabulary.seen), len(dataset.vocabulary.unseen)) == (292, 44)
    assert round(table["train"]["seen present per photo"], 1) == 4.0
    assert round(table["test"]["unseen present per photo"], 2) == 0.93
    assert set(dataset.vocabulary.seen) - set(clean.vocabulary.seen) == set(TWINS.split())
    assert clean.vocabulary.unseen == dataset.vocabulary.unseen
    order = {word: i for i, word in enumerate(read_lines(lists[0]))}
    assert sorted(dataset.vocabulary.seen, key=order.__getitem__) == list(dataset.vocabulary.seen)


# ---- own photos


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "2.jpg", "3.jpg"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "seen.txt").write_text("dog\npark, green\n")
    (tmp_path / "unseen.txt").write_text("zebra\n")
    return tmp_path


def prepare_album(folder: Path, file: str, content: str) -> Dataset:
    (folder / file).write_text(content, encoding="utf-8")
    return prepare_folder(folder / "album", folder / file, folder / "seen.txt", folder / "unseen.txt")


CSV = """photo,labels,split
a/1.jpg,dog;zebra,train
./2.jpg,"park, green; dog",test
3.jpg,,validation
gone.jpg,dog,train
"""


def test_labels_that_a_csv_does_not_mention_are_absent(album: Path) -> None:
    dataset = prepare_album(album, "labels.csv", CSV)
    assert dataset.name == "album"
    assert dataset.vocabulary == Vocabulary(unseen=("zebra",), seen=("dog", "park, green"))
    np.testing.assert_array_equal(dataset.split("train").targets.dense(), [[1, 1, -1]])
    np.testing.assert_array_equal(dataset.split("test").targets.dense(), [[-1, 1, 1]])
    np.testing.assert_array_equal(dataset.split("validation").targets.dense(), [[-1, -1, -1]])
    assert dataset.split("test").photos == ("2.jpg",)
    assert dataset.source["missing_photos"] == ["gone.jpg"]


def test_with_an_explicitly_absent_label_the_others_are_not_annotated(album: Path) -> None:
    rows = [
        {"photo": "a/1.jpg", "labels": ["dog"], "absent": ["zebra"], "split": "train"},
        {"photo": "2.jpg", "labels": ["zebra"], "split": "train"},
    ]
    from_json = prepare_album(album, "labels.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    from_csv = prepare_album(album, "labels.csv", "photo,labels,split\na/1.jpg,-zebra;dog,train\n2.jpg,zebra,train\n")
    for dataset in (from_json, from_csv):
        np.testing.assert_array_equal(dataset.split("train").targets.dense(), [[-1, 1, 0], [1, 0, 0]])
        assert counts(dataset)["train"]["unseen present per photo"] == 0.5
        write_dataset(dataset, album / "prepared")
        back = read_dataset(album / "prepared").split("train").targets
        np.testing.assert_array_equal(back.dense(), [[-1, 1, 0], [1, 0, 0]])


def test_without_a_split_the_rule_decides(album: Path) -> None:
    dataset = prepare_album(album, "labels.csv", "labels,photo\ndog,a/1.jpg\ndog,2.jpg\ndog,3.jpg\n")
    for name, split in dataset.splits.items():
        assert all(split_of(photo) == name for photo in split.photos)
    assert sum(len(split.photos) for split in dataset.splits.values()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("photo,labels\n2.jpg,dgo\n", r"labels\.csv:2: label 'dgo' is in neither list of labels; did you mean 'dog'"),
        ("photo,labels\n2.jpg,dog\n2.jpg,zebra\n", r"labels\.csv:3: photo '2\.jpg' appears twice"),
        ("photo,labels\n2.jpg,dog;-dog\n", r"labels\.csv:2: label 'dog' is both present and absent"),
        ("photo,labels\n../x.jpg,dog\n", r"labels\.csv:2: photo '\.\./x\.jpg' must be a path inside"),
        ("photo,labels\n/x.jpg,dog\n", "must be a path inside"),
        ("photo,labels\n,dog\n", "must be a path inside"),
        ("photo,labels\n2.jpg,dog,zebra\n", r"labels\.csv:2: expected 2 columns"),
        ("photo,labels\n2.jpg\n", r"labels\.csv:2: expected 2 columns"),
        ("photo,labels,split\n2.jpg,dog,tests\n", "there is no split 'tests'; did you mean 'test'"),
        ("photo,labels,splits\n2.jpg,dog,test\n", r"labels\.csv:1: 'splits' is not known here; did you mean 'split'"),
        ("photo\n2.jpg\n", r"labels\.csv:1: expected photo, labels"),
        ("", r"labels\.csv:1: expected photo, labels"),
        ("photo,labels\nnone.jpg,dog\n", "none of the 1 photos"),
        ('photo,labels\n2.jpg,"dog\n', r"labels\.csv:2: unexpected end of data"),
    ],
)
def test_a_bad_csv_row_is_named(album: Path, content: str, message: str) -> None:
    with pytest.raises(LesaError, match=message):
        prepare_album(album, "labels.csv", content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"labels\.jsonl:1 is not valid JSON"),
        ("[]", r"labels\.jsonl:1: expected an object"),
        ('{"photo": "2.jpg"}', "expected photo, labels"),
        ('{"photo": "2.jpg", "labels": "dog"}', "'labels' must be a list of strings, found 'dog'"),
        ('{"photo": "2.jpg", "labels": [], "absent": [1]}', "'absent' must be a list of strings"),
        ('{"photo": 2, "labels": []}', "must be strings, found 2"),
        ('{"photo": "2.jpg", "labels": [], "lables": []}', "'lables' is not known here; did you mean 'labels'"),
    ],
)
def test_a_bad_json_row_is_named(album: Path, line: str, message: str) -> None:
    with pytest.raises(LesaError, match=message):
        prepare_album(album, "labels.jsonl", line)


def test_label_files_that_cannot_be_used_are_named(album: Path) -> None:
    with pytest.raises(LesaError, match=r"labels\.txt is neither \.csv nor \.jsonl"):
        prepare_album(album, "labels.txt", CSV)
    with pytest.raises(LesaError, match=r"no\.csv does not exist"):
        prepare_folder(album / "album", album / "no.csv", album / "seen.txt", album / "unseen.txt")
    (album / "seen.txt").write_text("\n")
    with pytest.raises(LesaError, match=r"seen\.txt names no seen label"):
        prepare_album(album, "labels.csv", CSV)
    (album / "seen.txt").write_text("zebra\n")
    with pytest.raises(LesaError, match="'zebra' appears twice in the vocabulary"):
        prepare_album(album, "labels.csv", CSV)


def test_a_split_goes_on_without_photos_that_could_not_be_read() -> None:
    split = Split(("a", "b", "c"), Targets.from_present([[0], [1], [0, 1]], labels=2))
    assert split.without({"b"}).photos == ("a", "c")
    assert split.without({"b"}).targets.dense().tolist() == [[1, -1], [1, 1]]
    data = Dataset("d", Vocabulary(("u",), ("s",)), {"test": split}, {})
    with pytest.raises(LesaError, match="holds no photo"):
        data.split("test", ("a", "b", "c"))
