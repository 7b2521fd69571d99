"""The exam on photos of everyday things: it runs, counts right words as its page says, and its table is clean."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "everyday.py"


@pytest.fixture(scope="module")
def everyday() -> ModuleType:
    spec = importlib.util.spec_from_file_location("everyday", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["everyday"] = module
    spec.loader.exec_module(module)
    return module


def test_the_exam_runs(tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "green"), ("fishes-fish25.jpg", "orange")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / name)
    rows = "photo,labels\na.png,dog;multimeter\nb.png,duck\na.png,dog;multimeter\nfishes-fish25.jpg,fish\n"
    (tmp_path / "labels.csv").write_text(rows, encoding="utf-8")
    files = ["--json", tmp_path / "out.json", "--sheet", tmp_path / "out.png"]
    command = [sys.executable, BENCHMARK, "default", tmp_path, tmp_path / "labels.csv", *files]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    numbers = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    labels, tags = numbers["labels"], numbers["tags"]
    assert (labels["photos"], labels["labels"], labels["labels_without_vector"]) == (3, 5, ["multimeter"])
    assert [photo["labels"] for photo in numbers["photos"]][2] == ["fish", "goldfish"]
    assert 0 <= labels["bundle"]["top-1"] <= labels["bundle"]["top-5"] <= 100
    assert tags["label"]["3"] <= tags["bundle"]["3"]
    assert "order of 4 labels" in printed
    assert (tmp_path / "out.png").exists()


def test_a_label_needs_a_line_of_accepted_words(everyday: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("photo,labels\na.png,zeppelin\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="zeppelin"):
        everyday.read_exam(tmp_path, tmp_path / "labels.csv")


def test_accepted_words_come_from_label_photo_and_groups(everyday: ModuleType) -> None:
    table = {
        "labels": {"cat": "pet, fur", "dog": "bone"},
        "photos": {"a.jpg": "yarn"},
        "shared": [{"labels": "cat, cow", "words": "animal"}, {"photos": "b.jpg", "words": "snow"}],
    }
    assert everyday._accepted(table, "a.jpg", ["cat"]) == {"pet", "fur", "yarn", "animal"}
    assert everyday._accepted(table, "b.jpg", ["dog"]) == {"bone", "snow"}


def test_singular_and_plural_are_the_same(everyday: ModuleType) -> None:
    right = frozenset({"tree", "fish tank"})
    assert [everyday.is_right(tag, right) for tag in ("tree", "trees", "fish tanks", "tree house", "fish")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_the_table_is_clean(everyday: ModuleType) -> None:
    table = everyday.tomllib.loads(everyday.ACCEPTED.read_text(encoding="utf-8"))
    lists = [*table["labels"].values(), *table["photos"].values(), *(group["words"] for group in table["shared"])]
    assert [words for words in lists if not everyday._list(words) or words != words.lower()] == []
    named = {label for group in table["shared"] for label in everyday._list(group.get("labels", ""))}
    assert named <= table["labels"].keys()
