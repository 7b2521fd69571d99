"""Open Images' official files -> a data set: names of all versions, values, duplicates, resumption, malformed lines."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.open_images_tree import DESCRIPTIONS, OTHERS, TRAINABLE, build_open_images
from lesa.errors import LesaError
from lesa.learn.datasets import open_images, open_images_files
from lesa.learn.datasets.dataset import Dataset, match_photos, read_dataset, write_dataset
from lesa.learn.datasets.open_images import (
    FILES,
    are_among,
    open_images_paths,
    prepare_open_images,
    read_descriptions,
    read_mids,
)
from lesa.learn.datasets.open_images_files import chunks, parse_annotations

HEADER = "ImageID,Source,LabelName,Confidence\n"
IMAGE = "000002b66c9c498e"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_open_images(tmp_path / "oi", photos=30)
    return tmp_path / "oi"


def official(root: Path, split: str) -> Path:
    return root / "2018_04" / split / f"{split}-annotations-human-imagelabels.csv"


def lines_of(path: Path) -> dict[tuple[str, str], int]:
    """Read an annotation file of distinct lines by the csv module: (photo, MID) -> +1 or -1."""
    with path.open(newline="") as file:
        return {(row["ImageID"], row["LabelName"]): 2 * int(row["Confidence"]) - 1 for row in csv.DictReader(file)}


def entries_of(dataset: Dataset, split: str) -> dict[tuple[str, str], int]:
    """Return what a split annotates: (photo, MID) -> +1 or -1."""
    part, mids = dataset.split(split), dataset.source["mids"]
    dense = part.targets.dense()
    return {(Path(part.photos[n]).stem, mids[c]): int(dense[n, c]) for n, c in np.argwhere(dense)}


def same(first: Dataset, second: Dataset) -> bool:
    return (
        first.vocabulary == second.vocabulary
        and all(first.splits[name].photos == second.splits[name].photos for name in first.splits)
        and all(entries_of(first, name) == entries_of(second, name) for name in first.splits)
    )


def test_every_line_of_the_vocabulary_becomes_one_target(root: Path, tmp_path: Path) -> None:
    dataset = prepare_open_images(root, tmp_path / "work")
    assert [len(split.photos) for split in dataset.splits.values()] == [18, 6, 6]
    for split in dataset.splits:
        assert entries_of(dataset, split) == lines_of(official(root, split))
        assert dataset.splits[split].targets.rest == 0
        assert list(dataset.splits[split].photos) == sorted(dataset.splits[split].photos)
    assert set(np.unique(dataset.split("test").targets.dense())) == {-1, 0, 1}


def test_seen_labels_stand_in_the_trainable_order_and_unseen_ones_by_count(root: Path, tmp_path: Path) -> None:
    dataset = prepare_open_images(root, tmp_path / "work")
    # Of six test photos the first label is on all, the second on three, each other one on two: those go by MID.
    assert dataset.source["mids"] == [*OTHERS[:2], *sorted(OTHERS[2:]), *TRAINABLE]
    assert dataset.vocabulary.unseen[1:3] == ('Fiat 500 "topolino"', "Kazoo")
    assert "Ducks, geese and swans" in dataset.vocabulary.seen


def test_labels_that_share_a_description_are_named_with_their_mid(root: Path, tmp_path: Path) -> None:
    dataset = prepare_open_images(root, tmp_path / "work")
    shared_names = {"Ball (/m/0156sn)", "Ball (/m/018xm)", "Bun (/m/0119x1zy)", "Bun (/m/06q_t_)"}
    assert shared_names < set(dataset.vocabulary.seen)
    assert dataset.vocabulary.unseen[0] == "Poinsettia (/m/09g7533)"
    assert set(dataset.source["named_with_mid"]) == shared_names | {"Poinsettia (/m/0124h9)", "Poinsettia (/m/09g7533)"}


def test_every_count_that_is_not_official_is_one_sentence(root: Path, tmp_path: Path) -> None:
    differences = prepare_open_images(root, tmp_path / "work").source["differences"]
    assert "there are 16 described labels, officially 19,995" in differences
    assert "there are 10 trainable labels, officially 7,186" in differences
    assert "there are 5 labels that are annotated in the test set and not trainable, officially 2,594" in differences
    assert "there are 5 unseen labels, officially 400" in differences
    assert "5 unseen labels are annotated on fewer than 75 test photos" in differences
    assert "train: 18 photos, officially 5,655,108" in differences
    assert "validation: 6 photos, officially 41,620" in differences
    assert "test: 6 photos, officially 125,436" in differences
    assert sum("annotation lines, officially" in text for text in differences) == 3
    assert len(differences) == 11


def test_official_counts_make_no_difference(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_images, "OFFICIAL_CLASSES", 16)
    monkeypatch.setattr(open_images, "OFFICIAL_TRAINABLE", 10)
    monkeypatch.setattr(open_images, "OFFICIAL_OTHERS", 5)
    monkeypatch.setattr(open_images, "UNSEEN", 5)
    monkeypatch.setattr(open_images, "MIN_ANNOTATED", 2)
    monkeypatch.setattr(open_images, "OFFICIAL_PHOTOS", {"train": 18, "validation": 6, "test": 6})
    counts = {split: len(lines_of(official(root, split))) for split in ("train", "validation", "test")}
    monkeypatch.setattr(open_images, "OFFICIAL_LINES", counts)
    assert prepare_open_images(root, tmp_path / "work").source["differences"] == []


@pytest.mark.parametrize("folder", ["", "v7"])
def test_later_versions_names_and_header_are_accepted(root: Path, tmp_path: Path, folder: str) -> None:
    later = tmp_path / "later"
    (later / folder).mkdir(parents=True)
    for split, short in (("train", "train"), ("validation", "val"), ("test", "test")):
        text = official(root, split).read_text().replace(",1\n", ",1.0\n")
        (later / folder / f"oidv7-{short}-annotations-human-imagelabels.csv").write_text(text)
        for listed in (root / "2018_04" / split).glob("*-rotation.csv"):
            shutil.copy(listed, later / listed.name.replace("train-", "oidv6-train-"))
    described = (root / "2018_04" / "class-descriptions.csv").read_text()
    (later / folder / "oidv7-class-descriptions.csv").write_text("LabelName,DisplayName\n" + described)
    shutil.copy(root / "2018_04" / "classes-trainable.txt", later / folder / "oidv7-classes-trainable.txt")
    assert same(prepare_open_images(later, tmp_path / "a"), prepare_open_images(root, tmp_path / "b"))


def test_the_root_may_be_the_folder_of_the_version(root: Path, tmp_path: Path) -> None:
    inside, above = prepare_open_images(root / "2018_04", tmp_path / "a"), prepare_open_images(root, tmp_path / "b")
    assert same(inside, above)


def test_without_an_image_list_the_annotated_photos_are_taken(root: Path, tmp_path: Path) -> None:
    (root / "2018_04/test/test-images-with-rotation.csv").unlink()
    with official(root, "test").open("a") as file:
        file.write(f"{IMAGE},verification,/m/unheard,1\n")
    dataset = prepare_open_images(root, tmp_path / "work")
    # A label that is annotated once and not trainable is unseen too, so its photo counts.
    assert f"test/{IMAGE}.jpg" in dataset.split("test").photos
    assert "/m/unheard" in dataset.vocabulary.unseen
    assert "1 labels have no description and are named by their MID" in dataset.source["differences"]
    assert any(text.startswith("test: without its image list") for text in dataset.source["differences"])


def test_a_listed_photo_without_annotation_stays_and_an_unlisted_one_goes(root: Path, tmp_path: Path) -> None:
    with official(root, "validation").open("a") as file:
        file.write(f"{IMAGE},verification,/m/0bt9lr,1\n")
    with (root / "2018_04/train/train-images-with-labels-with-rotation.csv").open("a") as file:
        file.write(f"{IMAGE},train,,,,,,,,,,\n")
    dataset = prepare_open_images(root, tmp_path / "work")
    train = dataset.split("train")
    assert not train.targets.dense()[train.photos.index(f"train/{IMAGE}.jpg")].any()
    assert f"validation/{IMAGE}.jpg" not in dataset.split("validation").photos
    assert "validation: 1 annotated photos are not in its image list and are left out" in dataset.source["differences"]


def test_repeated_lines_are_one_annotation_and_present_wins_a_contradiction(root: Path, tmp_path: Path) -> None:
    path = official(root, "train")
    lines = path.read_text().splitlines()[1:]
    said = next(line for line in lines if line.endswith(",1"))
    denied = next(line for line in lines if line.endswith(",0"))
    with path.open("a") as file:
        file.write(f"{said}\n{said}\n{said[:-1]}0\n{denied[:-1]}1\n")
    dataset = prepare_open_images(root, tmp_path / "work")
    entries = entries_of(dataset, "train")
    assert len(entries) == len(lines)
    for line in (said, denied):
        image, _, mid, _ = line.split(",")
        assert entries[image, mid] == 1
    assert dataset.source["lines"]["train"] == {"lines": len(lines) + 4, "repeated": 2, "contradictory": 2}
    assert "train: 2 annotations contradict another, present wins" in dataset.source["differences"]


def test_the_authors_row_numbers_decide_where_they_fit(root: Path, tmp_path: Path) -> None:
    order = sorted(OTHERS)
    rows = [order.index(mid) for mid in (*OTHERS[:3], OTHERS[4])]  # without one of those that tie
    text = "\ufeff" + "\r\n".join(map(str, rows)) + "\r\n"
    (root / "2018_04" / "top_400_unseen.csv").write_text(text, encoding="utf-8", newline="")
    dataset = prepare_open_images(root, tmp_path / "work")
    assert dataset.source["mids"][:-10] == [*OTHERS[:3], OTHERS[4]]
    assert "2018_04/top_400_unseen.csv" in dataset.source["sha256"]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [5]])
def test_row_numbers_that_do_not_fit_give_way_to_the_rule(root: Path, tmp_path: Path, rows: list[int]) -> None:
    by_rule = prepare_open_images(root, tmp_path / "work")
    (root / "top_400_unseen.csv").write_text("\n".join(map(str, rows)))
    dataset = prepare_open_images(root, tmp_path / "work")
    assert dataset.vocabulary == by_rule.vocabulary
    assert dataset.source["differences"][0].startswith("top_400_unseen.csv was not used")


@pytest.mark.parametrize("line", ["seven", "0", "-1"])
def test_a_line_that_is_no_row_number_is_named(root: Path, tmp_path: Path, line: str) -> None:
    (root / "top_400_unseen.csv").write_text(f"0\n{line}\n")
    with pytest.raises(LesaError, match=r"top_400_unseen\.csv:2: expected a row number"):
        prepare_open_images(root, tmp_path / "work")


def test_missing_files_are_named_with_their_address(tmp_path: Path) -> None:
    with pytest.raises(LesaError) as error:
        prepare_open_images(tmp_path, tmp_path / "work")
    for file in FILES:
        assert file.name in str(error.value)
        assert f"https://storage.googleapis.com/openimages/{file.name}" in str(error.value)


def test_a_file_is_parsed_once_until_it_changes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(path: Path, *arguments: object) -> object:
        read.append(path.name)
        return chunks(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(open_images_files, "chunks", counting)
    first = prepare_open_images(root, tmp_path / "work")
    assert len(read) == 6
    read.clear()
    assert same(prepare_open_images(root, tmp_path / "work"), first)
    assert read == []
    with official(root, "train").open("a") as file:
        file.write(f"{first.split('train').photos[0][6:22]},verification,/m/unheard,1\n")
    second = prepare_open_images(root, tmp_path / "work")
    assert read == ["train-annotations-human-imagelabels.csv"]
    assert second.source["sha256"] != first.source["sha256"]
    kept = tmp_path / "work" / "test-annotations-human-imagelabels.csv.safetensors"
    kept.write_bytes(kept.read_bytes()[:100])
    read.clear()
    assert same(prepare_open_images(root, tmp_path / "work"), second)
    assert read == ["test-annotations-human-imagelabels.csv"]


def test_an_interrupted_call_goes_on_with_the_next_file(root: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_open_images(root, tmp_path / "work", progress=interrupt)
    assert (tmp_path / "work" / "train-annotations-human-imagelabels.csv.safetensors").exists()
    assert same(prepare_open_images(root, tmp_path / "work"), prepare_open_images(root, tmp_path / "other"))


def test_progress_rises_to_the_size_of_the_large_files(root: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    prepare_open_images(root, tmp_path / "work", progress=lambda done, total: heard.append((done, total)))
    size = sum(path.stat().st_size for path in (root / "2018_04").glob("*/*.csv"))
    assert heard == sorted(heard)
    assert heard[-1] == (size, size)
    heard.clear()
    prepare_open_images(root, tmp_path / "work", progress=lambda done, total: heard.append((done, total)))
    assert len(heard) == 6
    assert heard[-1] == (size, size)


@pytest.mark.parametrize(
    "line",
    [
        f"{IMAGE},verification,/m/0bt9lr",
        f"{IMAGE},verification,/m/0bt9lr,1,0.1",
        f"{IMAGE},machine,/m/0bt9lr,0.7",
        f"{IMAGE[:-1]},verification,/m/0bt9lr,1",
        f"{IMAGE}0,verification,/m/0bt9lr,1",
        "00000 2b66c9c498,verification,/m/0bt9lr,1",
        "x00002b66c9c498e,verification,/m/0bt9lr,1",
        "<html>",
    ],
)
def test_a_malformed_annotation_is_named_with_its_line(root: Path, tmp_path: Path, line: str) -> None:
    path = official(root, "test")
    good = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*good[:5], "\n", line + "\n", *good[5:]]))
    with pytest.raises(LesaError) as error:
        prepare_open_images(root, tmp_path / "work")
    assert f"{path}:7: expected" in str(error.value)
    assert line[:80] in str(error.value)


def test_a_malformed_image_list_line_is_named(root: Path, tmp_path: Path) -> None:
    path = root / "2018_04/train/train-images-with-labels-with-rotation.csv"
    with path.open("a") as file:
        file.write("oops,train\n")
    with pytest.raises(LesaError, match=rf"{path.name}:20: expected an ImageID first .*'oops,train'"):
        prepare_open_images(root, tmp_path / "work")


@pytest.mark.parametrize("content", [b"", b"ImageID,Source,LabelName\n", b"a,b,c,d\n", f"{IMAGE},x,/m/0,1\n".encode()])
def test_a_file_with_another_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(LesaError, match=r"a\.csv:1: expected the header `ImageID,Source,LabelName,Confidence`"):
        parse_annotations(tmp_path / "a.csv", lambda done: None)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER.encode() + b"\xff\xfe\n")
    with pytest.raises(LesaError, match="not a text file in UTF-8"):
        parse_annotations(tmp_path / "a.csv", lambda done: None)


@pytest.mark.parametrize("line", ["/m/0x", "/m/0a,Again", "/m/0b,Two, bare"])
def test_a_malformed_description_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "d.csv").write_text(f'/m/0a,"One, two"\n{line}\n')
    with pytest.raises(LesaError, match=r"d\.csv:2: expected `MID,description`"):
        read_descriptions(tmp_path / "d.csv")


def test_a_trainable_line_that_is_no_mid_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("/m/0a\n<html>\n")
    with pytest.raises(LesaError, match=r"t\.txt:2: expected a MID such as `/m/0bt9lr`, found '<html>'"):
        read_mids(tmp_path / "t.txt")


rows = st.tuples(
    st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"),
    st.sampled_from(["verification", "crowdsource-verification", "a, b", 'a "b"']),
    st.sampled_from(["/m/0", "/m/01", "/m/0bt9lr", "/g/11b"]),
    st.sampled_from(["0", "1", "0.0", "1.0"]),
)


@settings(max_examples=60, deadline=None)
@given(table=st.lists(rows, max_size=12), again=st.integers(0, 12), end=st.sampled_from(["\n", "\r\n"]))
def test_parsed_annotations_are_those_of_a_loop_over_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str, str]], again: int, end: str
) -> None:
    path = tmp_path_factory.mktemp("property") / "a.csv"
    table = table + [(*row[:3], "1") for row in table[:again]]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator=end).writerows([HEADER.strip().split(","), *table])
    said: dict[tuple[int, str], set[bool]] = {}
    for image, _, mid, confidence in table:
        said.setdefault((int(image, 16), mid), set()).add(float(confidence) == 1)

    tensors, about = parse_annotations(path, lambda done: None)

    images = tensors["images"][tensors["photos"]].tolist()
    mids = [about["mids"][code] for code in tensors["labels"]]
    found = dict(zip(zip(images, mids, strict=True), tensors["present"].tolist(), strict=True))
    assert found == {place: max(values) for place, values in said.items()}
    assert len(images) == len(said)
    assert about["contradictory"] == sum(len(values) == 2 for values in said.values())
    assert about["lines"] - about["repeated"] - about["contradictory"] == len(said)
    assert tensors["images"].tolist() == sorted({image for image, _ in said})


def test_the_largest_image_number_survives(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}ffffffffffffffff,verification,/m/0,1\n")
    tensors, _ = parse_annotations(tmp_path / "a.csv", lambda done: None)
    assert [f"{image:016x}" for image in tensors["images"].tolist()] == ["f" * 16]


@given(st.lists(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_numbers_are_found_in_an_ascending_list(numbers: list[int], listed: set[int]) -> None:
    found = are_among(np.array(numbers, np.uint64), np.array(sorted(listed), np.uint64))
    assert found.tolist() == [number in listed for number in numbers]


def test_photos_are_found_under_every_name_that_they_circulate_under(tmp_path: Path) -> None:
    build_open_images(tmp_path / "oi", photos=10, with_photos=True)
    names = prepare_open_images(tmp_path / "oi", tmp_path / "work").split("train").photos
    for place in range(len(open_images_paths(names[0]))):
        folder = tmp_path / f"photos-{place}"
        for name in names[1:]:
            copy = folder / open_images_paths(name)[place]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "oi" / name, copy)
        dataset = match_photos(prepare_open_images(tmp_path / "oi", tmp_path / "work"), folder, open_images_paths)
        assert dataset.split("train").photos == tuple(open_images_paths(name)[place] for name in names[1:])
        assert names[0] in dataset.source["missing_photos"]
        assert dataset.splits["test"].photos == ()


def test_missing_photos_are_kept_on_demand(tmp_path: Path) -> None:
    build_open_images(tmp_path / "oi", photos=10, with_photos=True)
    whole = match_photos(prepare_open_images(tmp_path / "oi", tmp_path / "work"), tmp_path / "oi", open_images_paths)
    assert whole.source["missing_photos"] == []
    first = whole.split("train").photos[0]
    (tmp_path / "oi" / first).unlink()
    kept = match_photos(
        prepare_open_images(tmp_path / "oi", tmp_path / "work"), tmp_path / "oi", open_images_paths, keep_missing=True
    )
    assert kept.split("train").photos == whole.split("train").photos
    assert kept.source["missing_photos"] == [first]


def test_the_data_set_survives_writing_and_reading(root: Path, tmp_path: Path) -> None:
    dataset = prepare_open_images(root, tmp_path / "work")
    write_dataset(dataset, tmp_path / "dataset")
    back = read_dataset(tmp_path / "dataset")
    assert same(back, dataset)
    assert back.source == dataset.source


@pytest.mark.shared
def test_the_official_label_files_have_the_official_counts(shared: Path, root: Path, tmp_path: Path) -> None:
    lists = shared / "lists"
    descriptions = read_descriptions(lists / "openimages_2018_04_class-descriptions.csv")
    trainable = read_mids(lists / "openimages_2018_04_classes-trainable.txt")
    assert (len(descriptions), len(trainable)) == (19_995, 7_186)
    assert set(trainable) <= set(descriptions)
    assert DESCRIPTIONS.items() <= descriptions.items()
    assert set(TRAINABLE) <= set(trainable)
    assert set(trainable).isdisjoint(OTHERS)
    for name in ("class-descriptions.csv", "classes-trainable.txt", "top_400_unseen.csv"):
        shutil.copy(lists / f"openimages_2018_04_{name}", root / "2018_04" / name)
    dataset = prepare_open_images(root, tmp_path / "work")
    assert len(dataset.vocabulary.seen) == 7_186
    assert dataset.vocabulary.seen[trainable.index("/m/0bt9lr")] == "Dog"
    assert not any("described labels" in text or "trainable labels" in text for text in dataset.source["differences"])
