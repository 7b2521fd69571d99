"""`lesa compare` and `lesa ablate` on the embedded data: what is chosen, run, skipped, and written."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lesa.errors import LesaError
from lesa.evaluation.bootstrap import draw_metrics
from lesa.files import read_json
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.evaluate import evaluate_run
from lesa.learn.experiments.ablate import ablation
from lesa.learn.experiments.compare import chance_metrics
from lesa.learn.experiments.comparison import read_comparison
from lesa.learn.experiments.table import difference, markdown
from lesa.learn.recipe import recipe_settings
from lesa.learn.run import open_run

Lesa = Callable[..., int]

CONFIG = """
dataset = "{data}/dataset"
regions = "{data}/regions"
vectors = ["{data}/vectors.safetensors"]
seeds = [0, 1]
reference = "LESA"

[methods.LESA]
recipe = "contrastive"
steps = 40

[methods."mean pool"]
recipe = "contrastive"
steps = 40
model = {{ kind = "mean-pool" }}
grid = {{ "optimiser.learning_rate" = [1e-9, 1e-3] }}

[methods.ceiling]
recipe = "contrastive"
steps = 40
model = {{ kind = "mean-pool" }}
supervised = true
"""


@pytest.fixture(scope="module")
def config(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "compare.toml"
    path.write_text(CONFIG.format(data=demo_data))
    return path


@pytest.fixture(scope="module")
def compared(config: Path) -> Path:
    """The comparison, run once."""
    from lesa.cli.main import cli

    out = config.parent / "out"
    cli.main(["compare", str(config), "-o", str(out), "--jobs", "2"], standalone_mode=False)
    return out


def test_the_grid_is_decided_without_unseen_labels_and_test_photos(compared: Path, config: Path) -> None:
    chosen = read_json(compared / "mean pool" / "chosen.json")
    assert chosen["chosen"] == {"optimiser.learning_rate": 1e-3}
    means = [each["mean"] for each in chosen["trials"]]
    assert means[1] > means[0]
    assert means[1] == pytest.approx(
        np.mean([chosen["trials"][1][task][name] for task in ("ZSL", "GZSL") for name in ("F1@5", "mAP")]), abs=1e-3
    )
    whole, trials = read_dataset(read_comparison(config).dataset), read_dataset(compared / "trials")
    assert set(trials.vocabulary.names) == set(whole.vocabulary.seen)
    assert trials.vocabulary.unseen == whole.vocabulary.seen[4::5]
    assert set(trials.splits) == {"train", "validation"}
    for name in (*trials.vocabulary.unseen[:3], *trials.vocabulary.seen[:3]):
        before, after = (
            data.splits["train"].targets.dense()[:, data.vocabulary.names.index(name)] for data in (whole, trials)
        )
        np.testing.assert_array_equal(before, after)
    for seed in (0, 1):
        run = open_run(compared / "mean pool" / f"seed-{seed}")
        assert (run.recipe.optimiser.learning_rate, run.recipe.seed) == (1e-3, seed)
        assert run.vocabulary == whole.vocabulary


def test_the_metrics_are_those_of_an_evaluation(compared: Path) -> None:
    folder = compared / "LESA" / "seed-1"
    expected = evaluate_run(open_run(folder)).reports["lesa"]
    evaluated = read_json(folder / "evaluation.json")
    for task, report in expected.items():
        assert evaluated["metrics"][task] == pytest.approx(report.metrics())
        assert all(len(values) == 200 for values in evaluated["draws"][task].values())
    assert evaluated["seconds"] > 0
    assert evaluated["memory"] > 1e8


def test_the_ceiling_learns_unseen_labels_and_has_the_same_tasks(compared: Path) -> None:
    ceiling, plain = (read_json(compared / name / "seed-0" / "evaluation.json") for name in ("ceiling", "mean pool"))
    assert list(ceiling["metrics"]) == ["ZSL", "GZSL", "seen"]
    assert ceiling["metrics"]["ZSL"]["mAP"] > plain["metrics"]["ZSL"]["mAP"]


def test_the_tables_hold_means_differences_and_chance(compared: Path, config: Path) -> None:
    names = ("LESA", "mean pool", "ceiling")
    results = {name: [read_json(compared / name / f"seed-{s}" / "evaluation.json") for s in (0, 1)] for name in names}
    by_chance = chance_metrics(read_comparison(config).dataset)
    table = (compared / "table.md").read_text(encoding="utf-8")
    assert table == markdown(results, by_chance, "LESA")
    row = next(line for line in table.splitlines() if line.startswith("| mean pool |"))
    values = [run["metrics"]["ZSL"]["mAP"] for run in results["mean pool"]]
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in row
    found = difference(results["mean pool"], results["LESA"], "ZSL", "mAP")
    assert found.value == pytest.approx(
        np.mean(values) - np.mean([r["metrics"]["ZSL"]["mAP"] for r in results["LESA"]])
    )
    assert f"{found.value:+.1f}" in row
    # The interval is that of averaged draws, made here from the scores themselves.
    drawn = {}
    for name in ("mean pool", "LESA"):
        runs = [evaluate_run(open_run(compared / name / f"seed-{seed}")) for seed in (0, 1)]
        unseen = runs[0].vocabulary.unseen_columns
        metrics = [draw_metrics(run.scores_NC[:, unseen], run.targets_NC[:, unseen])["mAP"] for run in runs]
        drawn[name] = np.mean(metrics, axis=0)
    half = 1.959964 * (drawn["mean pool"] - drawn["LESA"]).std(ddof=1)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=1e-3)
    assert 0 < by_chance["ZSL"]["mAP"] < 10
    with (compared / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 3 * 8
    assert (compared / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_call_trains_nothing_again(compared: Path, config: Path, lesa: Lesa) -> None:
    before = {path: path.stat().st_mtime_ns for path in compared.rglob("evaluation.json")}
    assert len(before) == 8
    assert lesa("compare", config, "-o", compared) == 0
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("evaluation.json")} == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 40", "steps = 50", "holds method 'LESA' with other settings"),
        ("[1e-9, 1e-3]", "[1e-3]", "holds method 'mean pool' with other settings"),
    ],
)
def test_other_settings_than_those_of_the_folder_are_refused(
    compared: Path,
    config: Path,
    tmp_path: Path,
    lesa: Lesa,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    (tmp_path / "other.toml").write_text(config.read_text().replace(old, new, 1))
    assert lesa("compare", tmp_path / "other.toml", "-o", compared) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_are_kept(
    config: Path, tmp_path: Path, lesa: Lesa, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = config.read_text().replace('reference = "LESA"', 'reference = "LESA"\nseeds = [0]', 1)
    broken = broken.replace("seeds = [0, 1]\n", "", 1).split("[methods.ceiling]")[0].split('[methods."mean pool"]')[0]
    other = '[methods.other]\nrecipe = "contrastive"\nsteps = 5\nvectors = ["nowhere.txt"]\n'
    (tmp_path / "broken.toml").write_text(broken.replace("[methods.LESA]", f"{other}\n[methods.LESA]"))
    assert lesa("compare", tmp_path / "broken.toml", "-o", tmp_path / "out", "--jobs", 2) == 2
    error = capsys.readouterr().err
    assert "other/seed-0" in error
    assert "nowhere.txt" in error
    assert (tmp_path / "out" / "LESA" / "seed-0" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('reference = "LESA"', 'reference = "LEAS"', "no method is called 'LEAS'; did you mean 'LESA'"),
        ("seeds = [0, 1]", "seed = 3", "there is no key 'seed'; did you mean 'seeds'"),
        ('regions = "', 'region = "', "there is no key 'region'"),
        ("steps = 40", "stepps = 40", "there is no key 'stepps'"),
        ('"optimiser.learning_rate"', '"optimiser.rate"', "there is no key 'optimiser.rate'"),
        ("[methods.LESA]", '[methods."../LESA"]', "its folder has its name"),
        ("[methods.LESA]", "[methods.trials]", "no method can be called 'trials'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "expected different whole numbers"),
        ("seeds = [0, 1]", "seeds = []", "expected different whole numbers"),
        ("[1e-9, 1e-3]", "1e-3", "`grid` gives a list for each key"),
        ("[1e-9, 1e-3]", "[]", "`grid` gives a list for each key"),
        ("supervised = true", 'supervised = "no"', "`supervised` is true or false"),
        ("supervised = true", 'dataset = "other"', "`dataset` is the comparison's"),
    ],
)
def test_mistakes_in_a_comparison_are_named(config: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in config.read_text()
    (tmp_path / "wrong.toml").write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(LesaError, match=message):
        read_comparison(tmp_path / "wrong.toml")


def test_a_spawned_run_imports_no_report() -> None:
    program = "import sys, lesa.learn.experiments.compare; sys.exit(bool({'jinja2', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_ablation_changes_one_thing_at_a_time(demo_data: Path, tmp_path: Path) -> None:
    places = CONFIG.split("seeds")[0].format(data=demo_data)
    (tmp_path / "recipe.toml").write_text(places + 'recipe = "published"\n')
    found = ablation(tmp_path / "recipe.toml", (0,), {"epochs": 2})
    names = [method.name for method in found.methods]
    # The published recipe has ten attentions, a front, a hard maximum, vectors that are not centred.
    assert {"M = 1", "M = 20", "without front", "separate W1", "centred vectors", "without diversity loss"} < set(names)
    assert {"M = 10", "with front", "hard selection", "vectors not centred"}.isdisjoint(names)
    recipes = {method.name: method.recipe({}, seed=0) for method in found.methods}
    assert recipes["without diversity loss"].loss.diversity == 0.0
    assert recipes["without diversity loss"].model == recipes["as it is"].model
    base = recipe_settings(recipes.pop("as it is"))
    for name, recipe in recipes.items():
        settings = recipe_settings(recipe)
        changed = {key for key in base if settings[key] != base[key]}
        assert len(changed) == 1, name
    (tmp_path / "recipe.toml").write_text(places + 'recipe = "contrastive"\n')
    names = [method.name for method in ablation(tmp_path / "recipe.toml", (0,), {}).methods]
    assert "with front" in names
    assert "without diversity loss" not in names
