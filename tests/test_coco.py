"""COCO's instances files become the data set that their rules promise; the trees are made in the official format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesa.errors import LesaError
from lesa.learn.datasets.coco import FILES, LABELS, coco_paths, prepare_coco, vocabulary_of
from lesa.learn.datasets.dataset import Dataset, match_photos, read_dataset, split_of, write_dataset

# The ids of the 80 object categories: those of the paper's 91 that were annotated.
IDS = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
ID_OF = dict(zip(LABELS, IDS, strict=True))

# The authors' lists (salman-h-khan/PL-ZSD_Release: MSCOCO/cls_names_test_coco.csv; Bansal's mscoco_*_classes.json).
UNSEEN_15 = (
    "airplane,train,parking meter,cat,bear,suitcase,frisbee,snowboard,fork,sandwich,hot dog,toilet,mouse,toaster,"
    "hair drier"
)
UNSEEN_17 = (
    "umbrella,cow,cup,bus,keyboard,skateboard,dog,couch,tie,snowboard,sink,elephant,cake,scissors,airplane,cat,knife"
)
SEEN_48 = (
    "toilet,bicycle,apple,train,laptop,carrot,motorcycle,oven,chair,mouse,boat,kite,sheep,horse,sandwich,clock,tv,"
    "backpack,toaster,bowl,microwave,bench,book,orange,bird,pizza,fork,frisbee,bear,vase,toothbrush,spoon,giraffe,"
    "handbag,broccoli,refrigerator,remote,surfboard,car,bed,banana,donut,skis,person,truck,bottle,suitcase,zebra"
)

Photos = dict[int, list[str]]
"""Image id -> the label of each instance; a `*` before it marks a crowd."""

TRAIN: Photos = {9: ["person", "dog", "dog"], 25: ["*person"], 30: ["person", "cat"], 34: [], 36: ["traffic light"]}
VAL: Photos = {42: ["cat", "dog"], 73: ["person"], 74: []}


def image(number: int, part: str, year: str) -> dict[str, Any]:
    name = f"{number:012d}.jpg" if year == "2017" else f"COCO_{part}2014_{number:012d}.jpg"
    return {
        "license": 5,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{part}{year}/{name}",
        "height": 640,
        "width": 480,
        "date_captured": "2013-11-19 21:42:04",
        "flickr_url": f"http://farm5.staticflickr.com/{number}_z.jpg",
        "id": number,
    }


def instance(number: int, photo: int, label: str) -> dict[str, Any]:
    crowd = label.startswith("*")
    return {
        "segmentation": {"counts": [272, 2, 4], "size": [640, 480]} if crowd else [[312.29, 562.89, 402.25, 511.49]],
        "area": 54652.95,
        "iscrowd": int(crowd),
        "image_id": photo,
        "bbox": [112.25, 244.5, 357.34, 336.4],
        "category_id": ID_OF[label.lstrip("*")],
        "id": number,
    }


def instances(photos: Photos, part: str, year: str = "2014") -> dict[str, Any]:
    pairs = [(photo, label) for photo, labels in photos.items() for label in labels]
    return {
        "info": {"description": f"COCO {year} Dataset", "version": "1.0", "year": int(year)},
        "images": [image(photo, part, year) for photo in photos],
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "annotations": [instance(number, photo, label) for number, (photo, label) in enumerate(pairs)],
        "categories": [{"supercategory": "thing", "id": ID_OF[label], "name": label} for label in LABELS],
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "annotations" / "instances_train2014.json", instances(TRAIN, "train"))
    write(tmp_path / "annotations" / "instances_val2014.json", instances(VAL, "val"))
    return tmp_path


def present(dataset: Dataset, split: str) -> dict[int, set[str]]:
    """Photo number -> names of the present labels, by way of the dense targets."""
    part = dataset.splits[split]
    names = np.array(dataset.vocabulary.names)
    rows = zip(part.photos, part.targets.dense(), strict=True)
    return {int(photo[-16:-4]): set(names[row > 0]) for photo, row in rows}


def training(dataset: Dataset) -> dict[int, set[str]]:
    return present(dataset, "train") | present(dataset, "validation")


def test_the_split_of_65_and_15_labels_is_the_published_one() -> None:
    vocabulary = vocabulary_of("65/15")
    assert ",".join(vocabulary.unseen) == UNSEEN_15
    assert len(vocabulary.seen) == 65
    assert set(vocabulary.names) == set(LABELS)


def test_the_split_of_48_and_17_labels_is_the_published_one() -> None:
    vocabulary = vocabulary_of("48/17")
    assert sorted(vocabulary.unseen) == sorted(UNSEEN_17.split(","))
    assert sorted(vocabulary.seen) == sorted(SEEN_48.split(","))


def test_all_80_labels_are_seen_in_multi_label_learning() -> None:
    assert (vocabulary_of("80").unseen, vocabulary_of("80").seen) == ((), LABELS)
    assert len(set(LABELS)) == 80


def test_no_training_photo_shows_an_unseen_object(root: Path) -> None:
    dataset = prepare_coco(root, "65/15")
    assert dataset.name == "coco-2014-65-15"
    assert training(dataset) == {9: {"person", "dog"}, 25: {"person"}, 34: set(), 36: {"traffic light"}}
    assert present(dataset, "test") == {42: {"cat", "dog"}, 73: {"person"}, 74: set()}
    assert dataset.source["photos_with_unseen_left_out"] == 1
    assert {split.targets.rest for split in dataset.splits.values()} == {-1}
    assert dataset.splits["test"].photos[0] == "COCO_val2014_000000000042.jpg"
    test_NC = dataset.split("test").targets.dense()
    assert sorted(np.unique(test_NC)) == [-1, 1]
    assert test_NC.shape == (3, 80)


def test_labels_in_neither_list_are_no_labels_and_dogs_are_unseen_in_48_17(root: Path) -> None:
    dataset = prepare_coco(root, "48/17")
    assert training(dataset) == {25: {"person"}, 34: set(), 36: set()}
    assert dataset.source["photos_with_unseen_left_out"] == 2
    assert dataset.splits["test"].targets.shape == (3, 65)


def test_with_80_seen_labels_every_photo_stays(root: Path) -> None:
    dataset = prepare_coco(root, "80")
    assert training(dataset) == {number: {label.strip("*") for label in labels} for number, labels in TRAIN.items()}
    assert dataset.source["photos_with_unseen_left_out"] == 0


def test_validation_follows_from_the_photos_name(tmp_path: Path) -> None:
    write(tmp_path / "instances_train2014.json", instances({i: ["dog"] for i in range(200)}, "train"))
    write(tmp_path / "instances_val2014.json", instances(VAL, "val"))
    dataset = prepare_coco(tmp_path)
    assert 2 < len(dataset.splits["validation"].photos) < 25
    assert len(dataset.splits["train"].photos) + len(dataset.splits["validation"].photos) == 200
    assert {split_of(photo) for photo in dataset.splits["validation"].photos} == {"validation"}
    assert {split_of(photo) for photo in dataset.splits["train"].photos} == {"train", "test"}


def test_the_files_of_2017_are_taken_and_counts_are_judged_by_the_year(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "instances_train2017.json", instances(TRAIN, "train", "2017"))
    val = instances(VAL, "val", "2017")
    val["categories"] = [category for category in val["categories"] if category["name"] != "toaster"]
    write(tmp_path / "annotations" / "instances_val2017.json", val)
    dataset = prepare_coco(tmp_path)
    assert dataset.splits["test"].photos == ("000000000042.jpg", "000000000073.jpg", "000000000074.jpg")
    assert dataset.source["differences"] == [
        "train2017 has 5 images, officially 118,287.",
        "val2017 has 3 images, officially 5,000.",
        "val2017 has 79 categories, officially 80.",
    ]
    assert sorted(dataset.source["sha256"]) == ["instances_train2017.json", "instances_val2017.json"]


def test_official_counts_are_no_difference(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(prepare_coco(root).source["differences"]) == 2
    monkeypatch.setattr("lesa.learn.datasets.coco.IMAGES", {"2014": (5, 3), "2017": (0, 0)})
    assert prepare_coco(root).source["differences"] == []


def test_files_of_two_editions_are_refused(root: Path) -> None:
    (root / "annotations" / "instances_val2014.json").rename(root / "annotations" / "instances_val2017.json")
    with pytest.raises(LesaError, match="are of two editions: give both files of 2014, or both of 2017"):
        prepare_coco(root)


def test_photos_are_named_as_they_lie_and_missing_ones_are_left_out(root: Path) -> None:
    for name in ("train2014/COCO_train2014_000000000009.jpg", "COCO_val2014_000000000042.jpg"):
        (root / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "photos" / name).touch()
    dataset = match_photos(prepare_coco(root), root / "photos", coco_paths)
    kept = dataset.splits["train"].photos + dataset.splits["validation"].photos
    assert kept == ("train2014/COCO_train2014_000000000009.jpg",)
    assert dataset.splits["test"].photos == ("COCO_val2014_000000000042.jpg",)
    assert len(dataset.source["missing_photos"]) == 5
    assert training(match_photos(prepare_coco(root), root / "photos", coco_paths, keep_missing=True)) == training(
        prepare_coco(root)
    )
    with pytest.raises(LesaError, match="none of the 7 photos is in"):
        match_photos(prepare_coco(root), root / "annotations", coco_paths)


def test_the_data_set_is_written_and_read(root: Path) -> None:
    dataset = prepare_coco(root)
    write_dataset(dataset, root / "prepared")
    assert training(read_dataset(root / "prepared")) == training(dataset)


def test_an_unknown_kind_is_named(root: Path) -> None:
    with pytest.raises(LesaError, match="there is no split '65-15' of COCO's labels; did you mean '65/15'"):
        prepare_coco(root, "65-15")


def test_missing_files_are_named_with_where_they_are_distributed(tmp_path: Path) -> None:
    with pytest.raises(LesaError) as caught:
        prepare_coco(tmp_path)
    for file in FILES:
        assert f"{file.name}  (annotations_trainval2014.zip, https://cocodataset.org" in str(caught.value)


@pytest.mark.parametrize("text", ['{"images": [', "", "[1, 2", '{"images": [\xff]}', "[" * 100_000])
def test_a_file_that_is_no_json_is_named(root: Path, text: str) -> None:
    (root / "annotations" / "instances_val2014.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LesaError, match=r"instances_val2014\.json is not valid JSON"):
        prepare_coco(root)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", None),
        ("images", [{"id": 1}]),
        ("images", [{"id": 1, "file_name": 7}]),
        ("images", [{"id": [], "file_name": "a.jpg"}]),
        ("annotations", {"image_id": 42}),
        ("annotations", [{"image_id": 42}]),
        ("categories", [{"id": 1, "name": None}, {"id": 2, "name": "dogs"}]),
        ("categories", ["dog"]),
    ],
)
def test_json_of_another_form_is_named(root: Path, key: str, value: Any) -> None:
    path = write(root / "annotations" / "instances_val2014.json", {**instances(VAL, "val"), key: value})
    with pytest.raises(LesaError, match=r"instances_val2014\.json is not a file of COCO instances .*expected `images`"):
        prepare_coco(root)
    write(path, [1])
    with pytest.raises(LesaError, match="is not a file of COCO instances"):
        prepare_coco(root)


@pytest.mark.parametrize("name", ["", "../42.jpg", "/42.jpg", "a/42.jpg", ".."])
def test_an_image_name_that_is_no_file_name_is_refused(root: Path, name: str) -> None:
    content = instances(VAL, "val")
    content["images"][0]["file_name"] = name
    write(root / "annotations" / "instances_val2014.json", content)
    with pytest.raises(LesaError, match="expected a file name without folders"):
        prepare_coco(root)


@pytest.mark.parametrize(("key", "value"), [("id", 73), ("file_name", "COCO_val2014_000000000073.jpg")])
def test_an_image_that_is_listed_twice_is_named(root: Path, key: str, value: Any) -> None:
    content = instances(VAL, "val")
    content["images"][0][key] = value
    write(root / "annotations" / "instances_val2014.json", content)
    with pytest.raises(LesaError, match=f"lists image {value!r} 2 times, expected once"):
        prepare_coco(root)


@pytest.mark.parametrize(("key", "value"), [("image_id", 99), ("category_id", 12)])
def test_an_instance_of_what_is_not_listed_is_named(root: Path, key: str, value: int) -> None:
    content = instances(VAL, "val")
    content["annotations"][0][key] = value
    write(root / "annotations" / "instances_val2014.json", content)
    with pytest.raises(LesaError, match=f"annotates image .*{value}.* one of which it does not list"):
        prepare_coco(root)


def test_categories_that_are_not_cocos_are_refused(root: Path) -> None:
    content = instances(VAL, "val")
    content["categories"][3]["name"] = "motorbike"
    write(root / "annotations" / "instances_val2014.json", content)
    with pytest.raises(LesaError, match="category 'motorbike', which is not one of COCO's 80 object labels"):
        prepare_coco(root)
