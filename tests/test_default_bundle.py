"""The bundle in the package: it tags, searches and composes phrases without other files, and has a model card."""

# Lists of words are easier to read without quotes.
# ruff: noqa: SIM905

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lesa.bundle import EMBEDDED, open_bundle
from lesa.cli.index import index
from lesa.cli.search import search
from lesa.cli.tag import tag
from lesa.errors import LesaError
from lesa.images import open_photo
from lesa.index.files import read_index_manifest
from lesa.tagger import Tagger

EVERYDAY = (
    "apple baby bag ball banana beach bed bicycle bird boat book bottle bowl box boy bread bridge bus cake camera "
    "car castle cat chair child church clock cloud coat coffee cow cup dog door dress elephant eye farm fence "
    "field fire fish flag flower forest fork garden giraffe girl glass grass guitar hair hat helicopter hill "
    "horse house kitchen knife lake lamp leaf lion man market mirror moon mountain mouse museum party phone piano "
    "picnic pizza plane plate pool rain river road rock roof sand sea sheep ship shoe sky snow sofa spoon star "
    "street sun sunset table telephone tiger tower train tree truck umbrella wall watch waterfall wave wedding "
    "wheel window wine woman zebra"
).split()


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger("default")


@pytest.fixture(scope="module")
def photos() -> Path:
    return Path(pytest.importorskip("skimage").__file__).parent / "data"


def best(tagger: Tagger, photo: Path, labels: list[str] | None = None, top: int = 8) -> list[str]:
    return [each.label for each in tagger.tag(photo, labels, top=top)]


def test_it_is_small_and_says_what_it_is() -> None:
    bundle = open_bundle("default")
    assert EMBEDDED.stat().st_size <= 16_000_000
    assert bundle.calibration is not None
    assert bundle.calibration.report["method"]
    assert bundle.card == (Path(__file__).parents[1] / "docs" / "default-bundle.md").read_text(encoding="utf-8")
    for words in ("Flickr8k", "Apache-2.0", "WordNet", "mAP", "Limits"):
        assert words in bundle.card


def test_everyday_things_have_their_names(tagger: Tagger, photos: Path) -> None:
    assert best(tagger, photos / "chelsea.png", top=1) == ["cat"]
    assert not {"tripod", "camera"}.isdisjoint(best(tagger, photos / "camera.png", top=2))
    assert not {"coffee", "espresso", "cup"}.isdisjoint(best(tagger, photos / "coffee.png", top=5))
    assert "rocket" in best(tagger, photos / "rocket.jpg", top=3)


def test_a_word_that_no_training_photo_carried_is_told_from_others(tagger: Tagger, photos: Path) -> None:
    words = ["animal", "tripod", "beverage", "swimming pool"]
    assert not any(tagger.labels(["tripod", "beverage"]).seen)
    assert best(tagger, photos / "chelsea.png", words)[0] == "animal"
    assert best(tagger, photos / "camera.png", words)[0] == "tripod"
    assert best(tagger, photos / "coffee.png", words)[0] == "beverage"


def test_probabilities_are_in_order_and_the_threshold_may_leave_none(tagger: Tagger, photos: Path) -> None:
    tags = tagger.tag(photos / "coffee.png", top=None)
    values = [each.probability for each in tags]
    assert values == sorted(values, reverse=True)
    assert all(value is not None and 0 < value < 1 for value in values)
    assert tagger.tag(photos / "coffee.png", threshold=1.0) == []


def test_everyday_words_and_phrases_of_them_need_nothing_else(tagger: Tagger) -> None:
    labels = tagger.labels([*EVERYDAY, "Horses", "red umbrella in the rain"])
    assert labels.composed == ("red umbrella in the rain",)
    with pytest.raises(LesaError, match="'qwertz'"):
        tagger.labels(["qwertz"])


def test_an_index_finds_it_again(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.png", "rocket.jpg", "coffee.png"):
        open_photo(photos / name).save(tmp_path / "photos" / f"{Path(name).stem}.jpg")
    index.main([str(tmp_path / "photos"), "-o", str(tmp_path / "index")], standalone_mode=False)
    assert read_index_manifest(tmp_path / "index")["bundle"] == "default"
    capsys.readouterr()
    search.main([str(tmp_path / "index"), "cat", "--format", "jsonl"], standalone_mode=False)
    assert Path(json.loads(capsys.readouterr().out.splitlines()[0])["photo"]).stem == "chelsea"


def test_lesa_tag_needs_no_bundle_and_no_pytorch(photos: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; from lesa.cli.main import main; main()"
    command = [sys.executable, "-c", blocked, "tag", str(photos / "chelsea.png"), "--top", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.split("%")) == 4


def test_tags_are_written_by_the_command(photos: Path, tmp_path: Path) -> None:
    tag.main([str(photos / "chelsea.png"), "-o", str(tmp_path / "tags.jsonl"), "--top", "2"], standalone_mode=False)
    entry = json.loads((tmp_path / "tags.jsonl").read_text())
    assert len(entry["tags"]) == 2
    assert 0 < entry["tags"][0]["probability"] < 1
