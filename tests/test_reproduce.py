"""`lesa prepare` and `lesa reproduce` on small trees in the official formats, from files to the published table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.nus_wide_tree import CONCEPTS, build_nus_wide
from helpers.open_images_tree import build_open_images
from helpers.small_run import save_backbone
from lesa.evaluation.published import published_rows
from lesa.evaluation.report import evaluate
from lesa.evaluation.rules import RULES
from lesa.files import read_json, read_lines, write_json
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.experiments import reproduce as reproducing
from lesa.learn.experiments.paper import EXPERIMENTS, Plan
from lesa.learn.experiments.reproduce import beside_published
from lesa.learn.recipe import read_recipe
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import load_tensors

Lesa = Callable[..., int]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUS-WIDE's files with photos, word vectors, and a small backbone, in one folder."""
    folder = tmp_path_factory.mktemp("nus-wide")
    build_nus_wide(folder, with_photos=True)
    words = {*CONCEPTS, *read_lines(folder / "NUS_WID_Tags" / "TagList1k.txt")}
    random = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.3f}' for x in random.normal(size=12))}" for word in sorted(words)]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    save_backbone(folder / "backbone", side=96)
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
    evaluated = read_json(out / "evaluation.json")["reports"]
    assert list(evaluated) == list(RULES)
    table = (out / "table.md").read_text(encoding="utf-8")
    ours = evaluated["lesa"]["ZSL"]["mean_average_precision"]
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
    assert "was begun with experiment 'nus-wide', not 'nus-wide-clean'" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["_prepare_dataset", "extract", "train_with_bar", "evaluate_run"])
def test_a_stopped_reproduction_goes_on_at_every_stage(
    lesa: Lesa, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tree / "cache"))
    out, real = tmp_path / "out", getattr(reproducing, stage)

    def stopped(*positional: object, **named: object) -> object:
        if stage == "extract":
            # In the middle of the photos: the store is begun and not finished.
            named["progress"] = stop
        else:
            stop()
        return real(*positional, **named)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(reproducing, stage, stopped)
        assert lesa(*arguments(tree, out)) == 130
    assert not (out / "table.md").exists()
    assert lesa(*arguments(tree, out), "--dry-run") == 0
    assert lesa(*arguments(tree, out)) == 0
    assert (out / "table.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "steps=7"], "was begun with overrides"),
        (["--vectors", "text:all-MiniLM-L6-v2"], "was begun with vectors"),
        (["--set", "dataset=elsewhere"], "follows from the experiment"),
    ],
)
def test_other_settings_than_those_it_was_begun_with_are_refused(
    lesa: Lesa, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    write_json(tmp_path / "out" / "plan.json", a_plan(tree, tmp_path / "out").settings)
    assert lesa(*arguments(tree, tmp_path / "out"), *change, "--dry-run") == 2
    assert message in capsys.readouterr().err


def a_plan(tree: Path, out: Path) -> Plan:
    """The plan of `arguments`."""
    short = ("steps=6", "validate_every=3", "model.attentions=2")
    return Plan(
        "nus-wide", tree, tree / "Flickr", str(tree / "vectors.txt"), out, f"hf:{tree / 'backbone'}", None, short
    )


def test_a_label_without_a_vector_is_found_before_the_photos_are_read(
    lesa: Lesa, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (tree / "vectors.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text("\n".join(lines[:-1]) + "\n")
    command = arguments(tree, tmp_path / "out")
    command[command.index("--vectors") + 1] = tmp_path / "few.txt"
    assert lesa(*command) == 2
    assert f"no vector for {lines[-1].split()[0]!r}" in capsys.readouterr().err
    assert not (tmp_path / "out" / "regions").exists()


def test_a_test_set_that_lacks_photos_says_so_in_the_table(lesa: Lesa, tree: Path, tmp_path: Path) -> None:
    for path in sorted((tree / "Flickr").rglob("*.jpg"))[:20]:
        (tmp_path / "some").mkdir(exist_ok=True)
        (tmp_path / "some" / path.name).write_bytes(path.read_bytes())
    command = arguments(tree, tmp_path / "out")
    command[command.index("--photos") + 1] = tmp_path / "some"
    assert lesa(*command) == 0
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "* 4 photos were not on disk and are left out" in table
    assert "* Photos: 24 instead of the official 269,648." in table


def test_open_images_from_official_files_to_the_table(
    lesa: Lesa, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_open_images(tmp_path / "root", with_photos=True)
    # The tree has five unseen labels: K must be smaller than the paper's.
    monkeypatch.setitem(EXPERIMENTS, "open-images", replace(EXPERIMENTS["open-images"], k=(1, 2)))
    words = (
        "bun kazoo poinsettia ball airmail ducks geese and swans cat fiat 500 topolino lemon lime bitters tree dog car"
    )
    random = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.3f}' for x in random.normal(size=12))}" for word in words.split()]
    (tmp_path / "vectors.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    command = arguments(tree, out, experiment="open-images")
    command[2] = tmp_path / "root"
    command[command.index("--vectors") + 1] = tmp_path / "vectors.txt"
    command[command.index("--photos") + 1] = tmp_path / "root"
    assert lesa(*command) == 0
    evaluated = read_json(out / "evaluation.json")["reports"]
    assert evaluated["lesa"]["ZSL"]["labels"] == 5
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| WSABIE |" in table
    assert "## GZSL" in table


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
        assert (recipe.steps, recipe.validate_every, recipe.validation_metric) == (200_000, 4000, "F1@5")
        assert recipe.optimiser.patience == 5
    else:
        assert (recipe.epochs, recipe.validation_metric, recipe.skip_unlabelled) == (2, "mAP", True)
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
