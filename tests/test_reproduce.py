"""`lesa prepare` and `lesa reproduce` on small trees in the official formats, from files to the published table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lesa.files import read_json, read_lines
from lesa.learn.datasets import read_dataset
from lesa.learn.experiments import EXPERIMENTS
from lesa.learn.features import RegionStore
from lesa.learn.recipe import read_recipe
from lesa.learn.reproduce import beside_published
from lesa.learn.run import load_tensors
from lesa.protocols import RULES, evaluate
from lesa.published import published_rows
from nus_wide_tree import CONCEPTS, build_nus_wide
from open_images_tree import build_open_images

Lesa = Callable[..., int]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUS-WIDE's files with photos, word vectors, and a small backbone, in one folder."""
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    folder = tmp_path_factory.mktemp("nus-wide")
    build_nus_wide(folder, with_photos=True)
    words = {*CONCEPTS, *read_lines(folder / "NUS_WID_Tags" / "TagList1k.txt")}
    random = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.3f}' for x in random.normal(size=12))}" for word in sorted(words)]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).eval().save_pretrained(folder / "backbone")
    ConvNextImageProcessorPil(size={"shortest_edge": 96}, crop_pct=1.0).save_pretrained(folder / "backbone")
    return folder


def arguments(tree: Path, out: Path, *, experiment: str = "nus-wide") -> list[str | Path]:
    """The command on the fixture tree, with a backbone and a training that are small enough for a test."""
    files = ["--photos", tree / "Flickr", "--vectors", tree / "vectors.txt", "--backbone", f"hf:{tree / 'backbone'}"]
    short = ["--set", "steps=6", "--set", "validate_every=3", "--set", "model.attentions=2"]
    return ["reproduce", experiment, tree, *files, *short, "-o", out]


def test_an_empty_folder_gets_a_list_of_what_is_needed_and_what_it_will_take(
    lesa: Lesa, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "nus-wide", tmp_path / "no", "--photos", tmp_path / "no", "--vectors", "glove.txt"]
    command += ["-o", tmp_path / "out"]
    assert lesa(*command, "--dry-run") == 0
    printed = capsys.readouterr().out
    for needed in ("Imagelist.txt", "AllTags1k.txt", "Groundtruth", "vgg_19.ckpt", "glove.6B.zip", "the photos"):
        assert needed in printed
    # 269,648 photos x 14 x 14 regions x 512 features x 2 bytes.
    assert "54.1 GB" in printed
    assert "200,000 of 200,000 steps" in printed
    assert not (tmp_path / "out").exists()
    assert lesa(*command) == 2


def test_from_official_files_to_the_table_beside_the_published_rows(
    lesa: Lesa, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert lesa(*arguments(tree, out), "--dry-run") == 0
    assert not out.exists()
    assert lesa(*arguments(tree, out)) == 0
    dataset, store = read_dataset(out / "dataset"), RegionStore.open(out / "regions")
    assert (dataset.name, len(store)) == ("nus-wide", 24)
    assert load_tensors(out / "run" / "last.safetensors")[1]["step"] == 6
    judged = read_json(out / "evaluation.json")["reports"]
    assert list(judged) == list(RULES)
    table = (out / "table.md").read_text(encoding="utf-8")
    ours = judged["lesa"]["ZSL"]["mean_average_precision"]
    assert f"| {ours:.2f} |" in table
    assert "| LESA (M=10) | 2020 | 25.7 | 41.1 | 31.6 |" in table
    # Ten made-up photos are not NUS-WIDE's test set, and the fingerprint tells.
    row = next(line for line in table.splitlines() if line.startswith("| LESA (M=10) |"))
    assert row.split("|")[-3].strip() == "no"
    assert "authors' slides" in table

    # A second call has nothing left to do, and another experiment does not mix with it.
    shards = sorted((out / "regions").glob("shard-*.f16"))
    before = [path.stat().st_mtime_ns for path in shards]
    assert before
    capsys.readouterr()
    assert lesa(*arguments(tree, out)) == 0
    assert "6 of 6 steps" not in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in shards] == before
    assert lesa(*arguments(tree, out, experiment="nus-wide-clean")) == 2
    assert "holds 'nus-wide', not 'nus-wide-clean'" in capsys.readouterr().err


def test_the_multi_label_experiment_stands_beside_the_multi_label_rows(
    lesa: Lesa, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert lesa(*arguments(tree, out, experiment="nus-wide-multi-label")) == 0
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "## multi-label" in table
    assert "| WSABIE |" in table
    assert "## ZSL" not in table


def test_rows_of_the_same_test_set_are_comparable_and_others_are_not() -> None:
    # 1,876 of 1,000 x 81 labels are present: NUS-WIDE's own fingerprint.
    random = np.random.default_rng(0)
    targets_NC = np.full(81_000, -1, dtype=np.int8)
    targets_NC[random.choice(81_000, 1876, replace=False)] = 1
    scores_NC = random.normal(size=(1000, 81))
    reports = {rules: evaluate(scores_NC, targets_NC.reshape(1000, 81), rules) for rules in RULES}
    lines = beside_published(published_rows("nus-wide", "ZSL"), reports, (3, 5)).splitlines()
    verdicts = {line.split(" | ")[0].strip("| "): line.split(" | ")[-2] for line in lines}
    assert verdicts["LESA (M=10)"] == "yes"
    assert verdicts["(ML)^2P-Encoder"] == "no"
    assert verdicts["ML-Decoder"] == "unknown"


@pytest.mark.parametrize("name", ["nus-wide", "open-images"])
def test_the_recipes_are_the_papers(name: str) -> None:
    recipe = read_recipe(Path(__file__).parents[1] / "configs" / f"{name}.toml")
    assert (recipe.batch_size, recipe.model.attentions, recipe.optimiser.learning_rate) == (32, 10, 1e-3)
    if name == "nus-wide":
        assert (recipe.steps, recipe.validate_every, recipe.validation_figure) == (200_000, 4000, "F1@5")
        assert recipe.optimiser.patience == 5
    else:
        assert (recipe.epochs, recipe.validation_figure, recipe.skip_unlabelled) == (2, "mAP", True)
        assert recipe.optimiser.patience == 2
    assert EXPERIMENTS[name].data_set == name


def test_prepare_nus_wide_counts_lists_and_keeps_missing_photos(
    lesa: Lesa, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    there = sorted((tree / "Flickr").rglob("*.jpg"))[3:]
    photos.mkdir()
    for path in there:
        (photos / path.name).write_bytes(path.read_bytes())
    command = ["prepare", "nus-wide", tree, "--photos", photos]
    assert lesa(*command, "-o", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "3 photos are not on disk" in printed
    assert "Photos: 24 instead of the official 269,648" in printed
    dataset = read_dataset(tmp_path / "out")
    assert sum(len(split.photos) for split in dataset.splits.values()) == 21
    assert all((photos / photo).is_file() for split in dataset.splits.values() for photo in split.photos)
    assert lesa(*command, "--keep-missing", "-o", tmp_path / "kept") == 0
    assert sum(len(split.photos) for split in read_dataset(tmp_path / "kept").splits.values()) == 24


def test_prepare_open_images_from_the_command_line(
    lesa: Lesa, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_open_images(tmp_path / "root")
    assert lesa("prepare", "open-images", tmp_path / "root", "-o", tmp_path / "out") == 0
    assert "open-images ->" in capsys.readouterr().out
    assert read_dataset(tmp_path / "out").splits["test"].targets.rest == 0
    assert list((tmp_path / "out" / "read").iterdir())


@pytest.mark.parametrize("adapter", ["nus-wide", "open-images", "coco", "voc"])
def test_missing_files_are_named_with_their_source(
    lesa: Lesa, tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: str
) -> None:
    assert lesa("prepare", adapter, tmp_path, "-o", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "lacks" in message
    assert any(page in message for page in ("nus.edu.sg", "storage.googleapis.com", "cocodataset.org", "robots.ox"))
    assert not (tmp_path / "out" / "dataset.json").exists()
