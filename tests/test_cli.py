"""The command line from end to end, on real photos and on the embedded data; and its answers to mistakes."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from helpers.small_run import save_backbone
from lesa.cli.main import cli
from lesa.files import read_json
from lesa.learn.datasets.coco import UNSEEN
from lesa.learn.datasets.nus_wide import KINDS
from lesa.learn.experiments.paper import EXPERIMENTS
from lesa.learn.regions.store import RegionStore, read_failed

Lesa = Callable[..., int]
# scikit-image carries these photos in its package; crops of them make a small collection.
PHOTOS = {"cat": ["cat", "animal"], "coffee": ["cup", "table"], "astronaut": ["person", "flag"], "rocket": ["sky"]}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own photos with own labels: 48 crops of four photos, a broken file, label lists and a vectors table."""
    from skimage import data

    folder = tmp_path_factory.mktemp("collection")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for name, labels in PHOTOS.items():
        image = Image.fromarray(getattr(data, name)())
        for i in range(12):
            left, top = random.integers(0, 60, 2)
            crop = image.crop((int(left), int(top), image.width - int(left), image.height - int(top)))
            crop.resize((96, 80)).save(folder / "photos" / f"{name}-{i:02d}.jpg")
            rows.append([f"{name}-{i:02d}.jpg", ";".join(labels), ("train", "train", "validation", "test")[i % 4]])
    # A broken photo that has labels: it is reported, and its split is used without it.
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    rows.append(["broken.jpg", "cat", "test"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["photo", "labels", "split"], *rows])
    (folder / "seen.txt").write_text("cat\ncup\nperson\nsky\n")
    (folder / "unseen.txt").write_text("animal\ntable\nflag\n")
    words = ["cat", "cup", "person", "sky", "animal", "table", "flag"]
    table = [f"{word} {' '.join(f'{x:.4f}' for x in random.normal(size=16))}" for word in words]
    (folder / "vectors.txt").write_text("\n".join(table) + "\n")
    save_backbone(folder / "backbone", side=96)
    (folder / "recipe.toml").write_text(
        f'dataset = "{folder}/set"\nregions = "{folder}/regions"\nvectors = ["{folder}/vectors.txt"]\nepochs = 3\n'
        "model.attentions = 3\n"
    )
    return folder


def test_own_photos_go_from_files_to_pictures(
    collection: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(collection / "cache"))
    lists = ("--seen", collection / "seen.txt", "--unseen", collection / "unseen.txt")
    labels = ("--labels", collection / "labels.csv")
    assert lesa("prepare", "folder", collection / "photos", *labels, *lists, "-o", collection / "set") == 0
    assert "train" in capsys.readouterr().out

    photos = (collection / "photos", "--backbone", f"hf:{collection / 'backbone'}", "--fit", "squash")
    assert lesa("extract", *photos, "-o", collection / "raw") == 0
    assert "48 photos" in capsys.readouterr().out
    assert [name for name, _ in read_failed(collection / "raw")] == ["broken.jpg"]
    assert lesa("project", collection / "raw", "-o", collection / "regions", "--size", "8") == 0
    assert RegionStore.open(collection / "regions").size == 8

    run = collection / "run"
    assert lesa("train", collection / "recipe.toml", "-o", run, "--set", "seed=3") == 0
    assert read_json(run / "run.json")["recipe"]["seed"] == 3
    capsys.readouterr()
    assert lesa("evaluate", run, "-k", "1", "-k", "2", "--rules", "lesa", "--rules", "sklearn", "--per-label") == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("ZSL", "GZSL", "seen", "F1@2", "mAP", "positives/image", "animal"))
    evaluated = read_json(run / "evaluation.json")["reports"]
    assert list(evaluated) == ["lesa", "sklearn"]
    assert (evaluated["lesa"]["ZSL"]["labels"], evaluated["lesa"]["ZSL"]["images"]) == (3, 12)
    assert f"{evaluated['lesa']['ZSL']['mean_average_precision']:.2f}" in table

    shown = ("show", run, collection / "photos" / "cat-00.jpg", collection / "photos" / "broken.jpg")
    assert lesa(*shown, "-o", collection / "shown", "--top", "2") == 0
    assert "broken.jpg" in capsys.readouterr().err
    before = (collection / "shown" / "cat-00.png").read_bytes()
    assert lesa("show", run, collection / "shown" / "cat-00.png", "-o", collection / "shown") == 2
    assert (collection / "shown" / "cat-00.png").read_bytes() == before
    with Image.open(collection / "shown" / "cat-00.png") as picture:
        assert picture.width > 400
        assert np.asarray(picture.convert("RGB")).std() > 10


@pytest.mark.shared
def test_the_clean_captions_benchmark_is_prepared_from_its_own_files(
    tmp_path: Path, lesa: Lesa, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = shared / "lists"
    words = ("--seen-words", lists / "nus_wide_TagList1k.txt", "--unseen-words", lists / "nus_wide_Concepts81.txt")
    captions = shared / "data" / "flickr8k" / "Flickr8k.token.txt"
    assert lesa("prepare", "captions", captions, *words, "--clean", "-o", tmp_path / "set") == 0
    assert "278" in capsys.readouterr().out


@pytest.fixture
def config(tmp_path: Path, demo_data: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'recipe = "contrastive"\ndataset = "{demo_data}/dataset"\nregions = "{demo_data}/regions"\n'
        f'vectors = ["{demo_data}/vectors.safetensors"]\nsteps = 2\n'
    )
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochz=3", "did you mean 'epochs'"),
        ("seed=many", "seed"),
        ("dataset=nowhere", "nowhere is not a prepared data set"),
        ("regions=nowhere", "nowhere"),
        ('vectors=["nowhere.txt"]', "nowhere.txt"),
        ("model.grid=[2, 2]", "49 regions do not make a grid of 2 x 2"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_and_exit_code_2(
    tmp_path: Path, config: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    front = ("--set", "model.front=true") if "grid" in override else ()
    assert lesa("train", config, "-o", tmp_path / "run", "--set", override, *front) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "nowhere"], "nowhere is not a run"),
        (["train", "nowhere.toml", "-o", "x"], "nowhere.toml does not exist"),
        (["extract", "nowhere", "-o", "x", "--backbone", "vgg19"], "nowhere"),
        (["extract", ".", "-o", "x", "--backbone", "vgg19"], "holds no photo"),
        (["project", "nowhere", "-o", "x"], "nowhere"),
        (["prepare", "folder", "p", "--labels", "l.csv", "--seen", "s", "--unseen", "u", "-o", "x"], "does not exist"),
        (["evaluate"], "Missing argument"),
        (["extract", ".", "-o", "x", "--backbone", "vgg19", "--batch-size", "0"], "--batch-size"),
        (["train", "r.toml", "-o", "x", "--device", "tpu"], "--device"),
        (["no-such-command"], "there is no command"),
    ],
)
def test_a_mistake_on_the_command_line_is_exit_code_2(
    tmp_path: Path,
    lesa: Lesa,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lesa(*command) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_another_size_are_refused(
    tmp_path: Path, config: Path, demo_data: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lesa("train", config, "-o", tmp_path / "run") == 0
    about = read_json(tmp_path / "run" / "run.json")
    about["recipe"]["model"]["vector_size"] = 300
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert lesa("evaluate", tmp_path / "run") == 2
    assert "does not hold this model" in capsys.readouterr().err


def test_an_unknown_split_or_rule_names_what_there_is(
    tmp_path: Path, config: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lesa("train", config, "-o", tmp_path / "run") == 0
    assert lesa("evaluate", tmp_path / "run", "--split", "tset") == 2
    assert "did you mean 'test'" in capsys.readouterr().err
    assert lesa("evaluate", tmp_path / "run", "--rules", "lsea") == 2
    assert "did you mean 'lesa'" in capsys.readouterr().err


def test_a_wrong_command_gets_a_proposal(lesa: Lesa, capsys: pytest.CaptureFixture[str]) -> None:
    assert lesa("trian") == 2
    assert "there is no command 'trian'; did you mean 'train'?" in capsys.readouterr().err
    assert lesa("--trian") == 2
    assert "No such option" in capsys.readouterr().err


def choices(command: str, option: str) -> list[str]:
    """The choices that the help text of an option lists."""
    found: click.Command = cli
    for name in command.split():
        assert isinstance(found, click.Group)
        command_found = found.get_command(click.Context(found), name)
        assert command_found is not None
        found = command_found
    (kind,) = (each.type for each in found.params if each.name == option)
    assert isinstance(kind, click.Choice)
    return list(kind.choices)


def test_the_choices_in_help_texts_are_those_of_the_code() -> None:
    # The help texts must appear without the imports that the code needs.
    assert choices("reproduce", "experiment") == list(EXPERIMENTS)
    assert choices("prepare nus-wide", "kind") == list(KINDS)
    assert choices("prepare coco", "kind") == list(UNSEEN)


def test_help_starts_without_pytorch() -> None:
    code = (
        "import sys, lesa.cli.main\n"
        "try: lesa.cli.main.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
