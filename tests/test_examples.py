"""The example photos: free, small, credited, and tagged as the documents and the demo's report say."""

import csv
import re
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from lesa.annotations import read_rows
from lesa.learn.experiments.tagged import TOP, TaggedPhoto, tag_photos
from lesa.tagger import Tagger

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "photos"
PHOTOS = sorted(path.name for path in EXAMPLES.glob("*.jpg"))
FREE = {"CC0 1.0", "Public domain"}


@pytest.fixture(scope="module")
def tagged() -> dict[str, TaggedPhoto]:
    return {photo.name: photo for photo in tag_photos(EXAMPLES / "labels.csv")}


def sources() -> dict[str, list[str]]:
    """Return the rows of the table of sources: file -> what it shows, author, licence, link."""
    lines = (EXAMPLES / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {name.strip("`"): rest for name, *rest in rows}


def test_every_photo_has_its_source_and_its_labels() -> None:
    assert 12 <= len(PHOTOS) <= 16
    assert list(sources()) == PHOTOS
    assert [row.photo for row in read_rows(EXAMPLES / "labels.csv")] == PHOTOS


def test_the_labels_are_tags_of_the_default_bundle() -> None:
    named = {label for row in read_rows(EXAMPLES / "labels.csv") for label in row.present}
    assert named <= set(Tagger("default").labels().names)


@pytest.mark.parametrize("name", PHOTOS)
def test_author_and_licence_are_in_the_file_too(name: str) -> None:
    _, author, licence, link = sources()[name]
    with Image.open(EXAMPLES / name) as image:
        assert image.getexif()[ExifTags.Base.Artist] == author
        assert image.getexif()[ExifTags.Base.Copyright] == licence
        assert min(image.size) <= 256
    assert licence in FREE
    assert re.fullmatch(r"\[[^]]+\]\(https://[^)\s]+\)", link)


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 400_000


def test_the_manual_shows_the_tags_of_the_default_bundle(tagged: dict[str, TaggedPhoto]) -> None:
    manual = (ROOT / "docs" / "tagging.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^examples/photos/(\S+) *(.*)$", manual, re.MULTILINE))
    shown = {name: re.findall(r"([a-z][a-z ]*) (\d+) %", tags) for name, tags in lines.items()}
    assert list(shown) == PHOTOS
    for name, tags in shown.items():
        found = [(label, int(text.removesuffix(" %"))) for label, text, _ in tagged[name].tags]
        assert [label for label, _ in tags[:TOP]] == [label for label, _ in found], name
        # Another processor may round differently.
        assert [int(percent) for _, percent in tags[:TOP]] == pytest.approx([p for _, p in found], abs=1), name


def test_the_text_about_them_is_true(tagged: dict[str, TaggedPhoto]) -> None:
    right = {name for name, photo in tagged.items() if photo.first_is_right}
    wrong = {name for name, photo in tagged.items() if photo.tags and not any(right for *_, right in photo.tags)}
    assert len(right) == 9
    assert wrong == {"hedgehog.jpg", "kangaroo.jpg", "windmill.jpg"}
    assert [name for name, photo in tagged.items() if not photo.tags] == ["scissors.jpg"]


def test_a_tagged_photo_names_its_author(tagged: dict[str, TaggedPhoto]) -> None:
    assert tagged["koala.jpg"].credit == "BurningWell, Public domain"


def test_a_photo_without_exif_and_without_a_right_label(tmp_path: Path) -> None:
    with Image.open(EXAMPLES / "koala.jpg") as image:
        image.convert("RGB").save(tmp_path / "k.png")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["photo", "labels"], ["k.png", "sofa"]])
    (photo,) = tag_photos(tmp_path / "labels.csv")
    assert photo.credit == ""
    assert [(label, right) for label, _, right in photo.tags] == [("koala", False)]
    assert not photo.first_is_right
