"""Pascal VOC's XML becomes the data set that its rules promise; the trees are made in the official format."""

from pathlib import Path

import numpy as np
import pytest

from lesa.errors import LesaError
from lesa.learn.datasets.dataset import Dataset, match_photos, read_dataset, split_of, write_dataset
from lesa.learn.datasets.voc import FILES, LABELS, prepare_voc, voc_paths

Photos = dict[str, list[str]]
"""Name -> the label of each object; a `?` before it marks a difficult one."""

TRAIN: Photos = {"000012": ["car"], "000017": ["person", "horse", "?person"], "000023": ["?chair", "?chair", "person"]}
VAL: Photos = {"000005": ["chair", "?chair"], "000007": ["?car"]}
TEST: Photos = {"000001": ["dog", "person"], "000002": [], "000003": ["?sofa", "chair"]}

OBJECT = """\
\t<object>
\t\t<name>{label}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>{difficult}</difficult>
\t\t<bndbox>
\t\t\t<xmin>156</xmin>
\t\t\t<ymin>97</ymin>
\t\t\t<xmax>351</xmax>
\t\t\t<ymax>270</ymax>
\t\t</bndbox>
\t\t<part>
\t\t\t<name>head</name>
\t\t\t<bndbox><xmin>160</xmin><ymin>99</ymin><xmax>170</xmax><ymax>110</ymax></bndbox>
\t\t</part>
\t</object>
"""
ANNOTATION = """\
<annotation>
\t<folder>VOC2007</folder>
\t<filename>{name}.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t\t<flickrid>207539885</flickrid>
\t</source>
\t<owner>
\t\t<flickrid>KevBow</flickrid>
\t\t<name>?</name>
\t</owner>
\t<size>
\t\t<width>500</width>
\t\t<height>333</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""


def write_annotations(root: Path, photos: Photos) -> None:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, labels in photos.items():
        objects = [OBJECT.format(label=label.lstrip("?"), difficult=int(label[0] == "?")) for label in labels]
        text = ANNOTATION.format(name=name, objects="".join(objects))
        (root / "Annotations" / f"{name}.xml").write_bytes(text.encode())


def write_list(root: Path, part: str, photos: Photos, end: str = "\n") -> Path:
    path = root / "ImageSets" / "Main" / f"{part}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{name}{end}" for name in photos).encode())
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for part, photos in ("train", TRAIN), ("val", VAL), ("test", TEST):
        write_annotations(root, photos)
        write_list(root, part, photos)
    return root


def values(dataset: Dataset, split: str) -> dict[str, dict[str, int]]:
    """Photo -> label -> its target where it is not absent."""
    part = dataset.splits[split]
    return {
        photo: {label: int(v) for label, v in zip(dataset.vocabulary.names, row, strict=True) if v != -1}
        for photo, row in zip(part.photos, part.targets.dense(), strict=True)
    }


def test_difficult_objects_alone_leave_a_label_not_annotated(root: Path) -> None:
    dataset = prepare_voc(root)
    assert dataset.name == "voc-2007"
    assert (dataset.vocabulary.unseen, dataset.vocabulary.seen) == ((), LABELS)
    assert values(dataset, "train") == {
        "000012.jpg": {"car": 1},
        "000017.jpg": {"person": 1, "horse": 1},
        "000023.jpg": {"chair": 0, "person": 1},
    }
    assert values(dataset, "validation") == {"000005.jpg": {"chair": 1}, "000007.jpg": {"car": 0}}
    assert values(dataset, "test") == {
        "000001.jpg": {"dog": 1, "person": 1},
        "000002.jpg": {},
        "000003.jpg": {"sofa": 0, "chair": 1},
    }


def test_absent_labels_are_written_down(root: Path) -> None:
    targets = prepare_voc(root).split("test").targets
    assert targets.rest == 0
    assert targets.entries.nnz == 3 * 20 - 1
    expected = np.full((3, 20), -1)
    expected[0, [LABELS.index("dog"), LABELS.index("person")]] = 1
    expected[2, LABELS.index("chair")] = 1
    expected[2, LABELS.index("sofa")] = 0
    np.testing.assert_array_equal(targets.dense(), expected)


def test_no_photo_of_training_or_validation_shows_an_unseen_object(root: Path) -> None:
    dataset = prepare_voc(root, unseen=("dog", "car"))
    assert dataset.vocabulary.unseen == ("dog", "car")
    assert dataset.vocabulary.seen == tuple(label for label in LABELS if label not in {"dog", "car"})
    assert list(values(dataset, "train")) == ["000017.jpg", "000023.jpg"]
    assert list(values(dataset, "validation")) == ["000005.jpg"]
    assert values(dataset, "test")["000001.jpg"] == {"dog": 1, "person": 1}
    assert len(dataset.splits["test"].photos) == 3
    assert dataset.source["photos_with_unseen_left_out"] == 2


def test_without_a_test_list_val_is_the_test_split(tmp_path: Path) -> None:
    train: Photos = {f"2008_{number:06d}": ["cat"] for number in range(300)}
    val: Photos = {"2008_900001": ["dog"]}
    for part, photos in ("train", train), ("val", val):
        write_annotations(tmp_path, photos)
        write_list(tmp_path, part, photos)
    dataset = prepare_voc(tmp_path)
    assert dataset.name == "voc-2012"
    assert values(dataset, "test") == {"2008_900001.jpg": {"dog": 1}}
    validation = dataset.splits["validation"].photos
    assert 4 < len(validation) < 30
    assert validation == tuple(f"{name}.jpg" for name in train if split_of(f"{name}.jpg") == "validation")
    assert len(dataset.splits["train"].photos) == 300 - len(validation)
    assert dataset.source["differences"] == [
        "There is no ImageSets/Main/test.txt: val is the test split.",
        "train of 2012 has 300 photos, officially 5,717.",
        "val of 2012 has 1 photos, officially 5,823.",
    ]


def test_a_test_list_without_annotations_is_reported_and_not_used(root: Path) -> None:
    (root / "Annotations" / "000002.xml").unlink()
    dataset = prepare_voc(root)
    assert list(values(dataset, "test")) == ["000005.jpg", "000007.jpg"]
    assert dataset.source["differences"][0] == (
        "1 of the 3 photos of ImageSets/Main/test.txt have no annotation: val is the test split."
    )


def test_counts_that_are_not_official_are_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare_voc(root).source["differences"] == [
        "train of 2007 has 3 photos, officially 2,501.",
        "val of 2007 has 2 photos, officially 2,510.",
        "test of 2007 has 3 photos, officially 4,952.",
    ]
    monkeypatch.setattr("lesa.learn.datasets.voc.PHOTOS", {"2007": {"train": 3, "val": 2, "test": 3}})
    assert prepare_voc(root).source["differences"] == []


def test_lists_with_windows_line_ends_are_read(root: Path) -> None:
    write_list(root, "train", TRAIN, end="\r\n")
    assert list(values(prepare_voc(root), "train")) == ["000012.jpg", "000017.jpg", "000023.jpg"]


def test_the_source_identifies_lists_and_annotations(root: Path) -> None:
    before = prepare_voc(root).source["sha256"]
    assert sorted(before) == ["Annotations", "test.txt", "train.txt", "val.txt"]
    write_annotations(root, {"000012": ["bus"]})
    assert {name for name, digest in prepare_voc(root).source["sha256"].items() if digest != before[name]} == {
        "Annotations"
    }


@pytest.mark.parametrize("folder", ["JPEGImages", "."])
def test_missing_photos_are_left_out(root: Path, folder: str) -> None:
    (root / "JPEGImages").mkdir()
    for name in ("000012", "000001"):
        (root / "JPEGImages" / f"{name}.jpg").touch()
    dataset = match_photos(prepare_voc(root), root / folder, voc_paths)
    prefix = "" if folder == "JPEGImages" else "JPEGImages/"
    assert dataset.splits["train"].photos == (f"{prefix}000012.jpg",)
    assert dataset.splits["test"].photos == (f"{prefix}000001.jpg",)
    assert len(dataset.source["missing_photos"]) == 6
    kept = match_photos(prepare_voc(root), root / folder, voc_paths, keep_missing=True)
    assert [len(split.photos) for split in kept.splits.values()] == [3, 2, 3]
    with pytest.raises(LesaError, match="none of the 8 photos is in"):
        match_photos(prepare_voc(root), root / "Annotations", voc_paths)


def test_the_data_set_is_written_and_read(root: Path) -> None:
    dataset = prepare_voc(root, unseen=("horse",))
    write_dataset(dataset, root / "prepared")
    assert values(read_dataset(root / "prepared"), "test") == values(dataset, "test")


def test_missing_files_are_named_with_where_they_are_distributed(tmp_path: Path) -> None:
    with pytest.raises(LesaError) as caught:
        prepare_voc(tmp_path)
    for file in FILES:
        assert f"{file.name}  (VOCdevkit/VOC2007 of VOCtrainval_06-Nov-2007.tar" in str(caught.value)


def test_a_missing_annotation_is_named(root: Path) -> None:
    (root / "Annotations" / "000007.xml").unlink()
    with pytest.raises(LesaError, match=r"000007\.xml does not exist, though its photo is listed; unpack VOCdevkit"):
        prepare_voc(root)


def test_an_unknown_unseen_label_is_named(root: Path) -> None:
    with pytest.raises(LesaError, match="'airplane' is not a label of Pascal VOC; did you mean 'aeroplane'"):
        prepare_voc(root, unseen=("airplane",))


@pytest.mark.parametrize("line", ["000005  1", "../000005", "a/b"])
def test_a_malformed_line_of_a_list_is_named(root: Path, line: str) -> None:
    write_list(root, "val", {"000005": [], line: []})
    with pytest.raises(LesaError, match=r"val\.txt:2: expected the name of a photo such as 000005"):
        prepare_voc(root)


def test_a_photo_in_two_lists_is_named(root: Path) -> None:
    write_list(root, "val", {"000005": [], "000012": []})
    with pytest.raises(LesaError, match="photo 000012 appears twice in the lists"):
        prepare_voc(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"<annotation><object>", "no element found"),
        (b"", "no element found"),
        (b"<annotation>\xff</annotation>", "not well-formed"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "unknown encoding"),
        (b"<annotation>&name;</annotation>", "undefined entity"),
        (b"<html/>", "holds <html>, expected <annotation>"),
        (b"<annotation><object/></annotation>", "'' is not a label of Pascal VOC"),
        (b"<annotation><object><name>dogs</name></object></annotation>", "did you mean 'dog'"),
    ],
)
def test_malformed_xml_is_named(root: Path, text: bytes, message: str) -> None:
    (root / "Annotations" / "000007.xml").write_bytes(text)
    with pytest.raises(LesaError, match=rf"000007\.xml.*{message}"):
        prepare_voc(root)


GROWING = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'
NAMING = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'
OUTSIDE = '<!DOCTYPE annotation SYSTEM "http://example.org/a.dtd"><annotation/>'


@pytest.mark.parametrize("text", [GROWING, NAMING, OUTSIDE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_could_do_harm_is_refused(root: Path, text: str, encoding: str) -> None:
    (root / "Annotations" / "000007.xml").write_bytes(text.encode(encoding))
    with pytest.raises(LesaError, match=r"000007\.xml is not read: it declares a document type"):
        prepare_voc(root)


def test_an_object_without_a_mark_is_not_difficult(root: Path) -> None:
    (root / "Annotations" / "000007.xml").write_text("<annotation><object><name>car</name></object></annotation>")
    assert values(prepare_voc(root), "validation")["000007.jpg"] == {"car": 1}
