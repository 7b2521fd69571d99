"""CONTRIBUTING's recipes are true: each is followed with a toy in a copy of the package, and the toy runs.

A recipe must name exactly the source files that its toy touches.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE_FILE = re.compile(r"`(src/lesa/[\w./<>]+\.py)`")
LARGE = 100_000
"""Bytes above which a file is linked into the copy of the package, not copied."""


@dataclass(frozen=True)
class Toy:
    """An addition made by a recipe."""

    recipe: str
    """The recipe's heading in CONTRIBUTING.md."""
    name: str
    """The toy's name, which replaces `<name>` in the recipe."""
    new: Mapping[str, str] = field(default_factory=dict)
    """New files and their text."""
    changed: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Changed files: a text that the file holds once, and its replacement."""

    @property
    def files(self) -> set[str]:
        return {*self.new, *self.changed}

    def add(self, package: Path) -> None:
        """Make the addition in a copy of the package."""
        for name, text in self.new.items():
            (package / name.removeprefix("src/lesa/")).write_text(text.lstrip(), encoding="utf-8")
        for name, pairs in self.changed.items():
            place = package / name.removeprefix("src/lesa/")
            text = place.read_text(encoding="utf-8")
            for old, new in pairs:
                assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
                text = text.replace(old, new)
            place.write_text(text, encoding="utf-8")


ADAPTER = Toy(
    "A dataset adapter",
    "toy",
    new={
        "src/lesa/learn/datasets/toy.py": '''
"""A folder of photos whose labels are the first words of their names.

The rules: `dog-1.jpg` shows a dog and nothing else; every photo is for training.
"""

from pathlib import Path

from lesa.images import list_photos
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets


def prepare_toy(root: Path) -> Dataset:
    """Make a data set from a folder."""
    photos = list_photos(root)
    seen = tuple(sorted({photo.split("-")[0] for photo in photos}))
    present = [[seen.index(photo.split("-")[0])] for photo in photos]
    train = Split(tuple(photos), Targets.from_present(present, len(seen)))
    return Dataset("toy", Vocabulary((), seen), {"train": train}, {})
''',
    },
    changed={
        "src/lesa/cli/prepare.py": [
            (
                "\n\ndef _save_dataset(",
                '''

@prepare.command("toy")
@click.argument("root", type=PATH)
@click.option("-o", "--out", type=PATH, required=True)
def toy(root: Path, out: Path) -> None:
    """Photos whose names begin with their label.

    \\b
    Example:
      lesa prepare toy photos -o prepared/toy
    """
    from lesa.learn.datasets.toy import prepare_toy

    _save_dataset(prepare_toy(root), out)


def _save_dataset(''',
            )
        ]
    },
)

BASELINE = Toy(
    "A baseline",
    "toy",
    new={
        "src/lesa/learn/baselines/toy.py": '''
"""A linear map from the mean region into word space."""

from dataclasses import dataclass

from torch import Tensor, nn

from lesa.learn.model import Model, ModelConfig, Scores


@dataclass(frozen=True)
class ToySettings:
    """The settings of the toy."""

    factor: float = 1.0
    """A factor of all scores."""


class Toy(Model):
    """s[b,c] = factor (G mean_r f[b,r]) . v[c]"""

    settings_type = ToySettings
    settings: ToySettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.word_map = nn.Linear(config.region_size, config.vector_size, bias=False)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score C labels by their vectors on B photos by their regions."""
        return Scores(self.settings.factor * self.word_map(regions_BRD.mean(dim=1)) @ vectors_CE.T)
''',
    },
    changed={
        "src/lesa/learn/methods.py": [
            (
                "from lesa.learn.baselines.training_free import TrainingFree\n",
                "from lesa.learn.baselines.toy import Toy\n"
                "from lesa.learn.baselines.training_free import TrainingFree\n",
            ),
            ('    "training-free": TrainingFree,\n', '    "toy": Toy,\n    "training-free": TrainingFree,\n'),
        ],
        "src/lesa/learn/recipe.py": [
            ('    "labelem": ', '    "toy": _compared({"kind": "toy"}, "ranking"),\n    "labelem": ')
        ],
    },
)

FORMAT = Toy(
    "An output format for tags",
    "toy",
    changed={
        "src/lesa/tag_files.py": [
            (
                "\n\ndef csv_writer(",
                '''

def toy_writer(file: IO[str]) -> Write:
    """Return a writer of one line per photo: its labels."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        file.write(" + ".join(tag.label for tag in tags) + "\\n")

    return write


def csv_writer(''',
            )
        ],
        "src/lesa/cli/tag.py": [
            ("lines_writer, resume\n", "lines_writer, resume, toy_writer\n"),
            ('["table", "jsonl", "csv"]', '["table", "jsonl", "csv", "toy"]'),
            (
                '    elif form == "table":\n',
                '    elif form == "toy":\n        yield toy_writer(sys.stdout), set()\n    elif form == "table":\n',
            ),
        ],
    },
)

COMMAND = Toy(
    "A command",
    "hello",
    new={
        "src/lesa/cli/hello.py": '''
"""`lesa hello`: a greeting."""

import click


@click.command()
@click.argument("name")
def hello(name: str) -> None:
    """Greet NAME.

    \\b
    Example:
      lesa hello world
    """
    click.echo(f"hello {name}")
''',
    },
    changed={
        "src/lesa/cli/main.py": [
            ('    "index",\n', '    "hello",\n    "index",\n'),
            (
                "    a demo on embedded data       lesa demo\n",
                "    a demo on embedded data       lesa demo\n    a greeting                    lesa hello\n",
            ),
        ]
    },
)

RULE = Toy(
    "A metric rule",
    "toy",
    changed={
        "src/lesa/evaluation/rules.py": [
            ("RULES = {\n", 'RULES = {\n    "toy": Rules(at_k=False, labelled_images_only=True),\n')
        ]
    },
)

TOYS = [ADAPTER, BASELINE, FORMAT, COMMAND, RULE]


def recipes() -> dict[str, str]:
    """Return CONTRIBUTING's recipes: heading -> text."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    chapter = re.split(r"^## ", text.partition("## Five recipes\n")[2], flags=re.MULTILINE)[0]
    _, *parts = re.split(r"^### ", chapter, flags=re.MULTILINE)
    return {heading: body for heading, _, body in (part.partition("\n") for part in parts)}


def link_large(source: str, target: str) -> None:
    if Path(source).stat().st_size > LARGE:
        Path(target).symlink_to(source)
    else:
        shutil.copy2(source, target)


def lesa_with(toy: Toy, folder: Path, *arguments: str | Path) -> str:
    """Add a toy to a copy of the package in `folder`, run the copy's command line there, and return its output."""
    package = folder / "copy" / "lesa"
    shutil.copytree(
        ROOT / "src" / "lesa", package, copy_function=link_large, ignore=shutil.ignore_patterns("__pycache__")
    )
    toy.add(package)
    done = subprocess.run(
        [sys.executable, "-m", "lesa", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image
    from skimage import data

    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("camera", "coffee"):
        Image.fromarray(getattr(data, name)()).convert("RGB").save(folder / f"{name}-1.jpg")
    return folder


def test_every_recipe_has_a_toy() -> None:
    assert list(recipes()) == [toy.recipe for toy in TOYS]


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.recipe)
def test_a_recipe_names_the_files_that_its_toy_touches(toy: Toy) -> None:
    named = SOURCE_FILE.findall(recipes()[toy.recipe])
    assert {name.replace("<name>", toy.name) for name in named} == toy.files


def test_a_dataset_adapter_is_added(tmp_path: Path, photos: Path) -> None:
    output = lesa_with(ADAPTER, tmp_path, "prepare", "toy", photos, "-o", "prepared")
    assert "toy" in output
    assert (tmp_path / "prepared" / "dataset.json").exists()


def test_a_baseline_is_added(tmp_path: Path, small_bundle: Path) -> None:
    config = tmp_path / "toy.toml"
    config.write_text(
        f"""
recipe = "toy"
dataset = {str(small_bundle / "set")!r}
regions = {str(small_bundle / "regions")!r}
vectors = [{str(small_bundle / "vectors.txt")!r}]
steps = 2
model.settings.factor = 2.0
""",
        encoding="utf-8",
    )
    assert "trained" in lesa_with(BASELINE, tmp_path, "train", config, "-o", "run")


def test_an_output_format_for_tags_is_added(tmp_path: Path, photos: Path) -> None:
    output = lesa_with(FORMAT, tmp_path, "tag", photos / "camera-1.jpg", "--format", "toy", "--top", "3")
    assert output.count(" + ") == 2


def test_a_command_is_added(tmp_path: Path) -> None:
    assert lesa_with(COMMAND, tmp_path, "hello", "world") == "hello world\n"


def test_a_metric_rule_is_added(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.array([[2.0, 1.0], [0.5, 3.0]]))
    np.save(tmp_path / "targets.npy", np.array([[1, -1], [-1, 1]], np.int8))
    assert "toy" in lesa_with(RULE, tmp_path, "score", "scores.npy", "targets.npy", "--rules", "toy")
