"""Training: it learns, stops at any moment, and when it is resumed it ends in the same bits."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesa.errors import LesaError
from lesa.files import read_json, write_json
from lesa.learn.datasets.dataset import Dataset, Split, Targets, read_dataset, write_dataset
from lesa.learn.evaluate import evaluate_run
from lesa.learn.recipe import Recipe, make_recipe
from lesa.learn.run import load_tensors, open_run
from lesa.learn.train import Progress, Training, epoch_order, train

KILLS = 5


def places(data: Path) -> dict[str, object]:
    return {
        "dataset": str(data / "dataset"),
        "regions": str(data / "regions"),
        "vectors": [str(data / "vectors.safetensors")],
    }


def recipe_of(data: Path, name: str = "published", **settings: object) -> Recipe:
    return make_recipe({"recipe": name, **places(data), "steps": 12, "validate_every": 4, **settings})


def log_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_checkpoint(folder: Path, other: Path) -> None:
    tensors, state = load_tensors(folder / "last.safetensors")
    others, other_state = load_tensors(other / "last.safetensors")
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert {**state, "log_bytes": 0} == {**other_state, "log_bytes": 0}


@pytest.mark.parametrize("name", ["published", "contrastive"])
def test_a_run_learns_more_than_chance_and_is_rebuilt_from_its_folder(
    demo_data: Path, tmp_path: Path, name: str
) -> None:
    seen: list[Progress] = []
    train(recipe_of(demo_data, name, steps=300, validate_every=150), tmp_path / "run", progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 301))
    reports = evaluate_run(open_run(tmp_path / "run")).reports["lesa"]
    # Five labels drawn blindly meet 3.99 of 292 with an F1@5 of 1.5 %.
    assert reports["seen"].f1[5] > 10
    assert list(reports) == ["ZSL", "GZSL", "seen"]


def test_a_run_that_is_killed_five_times_ends_with_the_same_bits(demo_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "recipe.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in places(demo_data).items()]
    config.write_text("\n".join([*lines, "steps = 240", "validate_every = 15"]))

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lesa", "train", str(config), "-o", str(out)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "undisturbed").wait() == 0
    moments = random.Random(20)
    for _ in range(KILLS):
        grown = moments.randrange(1, 4)
        process = start(tmp_path / "killed")
        before = lines_of(tmp_path / "killed")
        # Kill it at a random moment after it has written some more of its log.
        while lines_of(tmp_path / "killed") < before + grown:
            assert not ended(process, within=0.05)
        assert not ended(process, within=moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait() == 0
    assert_same_checkpoint(tmp_path / "killed", tmp_path / "undisturbed")
    assert (tmp_path / "killed" / "best.safetensors").read_bytes() == (
        tmp_path / "undisturbed" / "best.safetensors"
    ).read_bytes()
    steps = [line["step"] for line in log_of(tmp_path / "killed")]
    assert steps == [line["step"] for line in log_of(tmp_path / "undisturbed")]


def ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Wait some seconds for the end of a process and return whether it came."""
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        return False
    return True


def lines_of(folder: Path) -> int:
    return (folder / "log.jsonl").read_bytes().count(b"\n") if (folder / "log.jsonl").exists() else 0


@pytest.mark.parametrize("name", ["published", "contrastive"])
def test_an_interrupted_run_keeps_its_step_and_is_resumed(demo_data: Path, tmp_path: Path, name: str) -> None:
    recipe = recipe_of(demo_data, name)

    def interrupt(progress: Progress) -> None:
        if progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", progress=interrupt)
    assert load_tensors(tmp_path / "stopped" / "last.safetensors")[1]["step"] == 6
    assert signal.getsignal(signal.SIGINT) is handler
    train(recipe, tmp_path / "stopped")
    train(recipe, tmp_path / "whole")
    assert_same_checkpoint(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_stays_as_it_is(demo_data: Path, tmp_path: Path) -> None:
    train(recipe_of(demo_data), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    train(recipe_of(demo_data), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_another_recipe_is_refused_with_the_difference(demo_data: Path, tmp_path: Path) -> None:
    train(recipe_of(demo_data), tmp_path)
    with pytest.raises(LesaError, match=r"another recipe .*\(seed\)"):
        train(recipe_of(demo_data, seed=1), tmp_path)
    with pytest.raises(LesaError, match=r"another recipe .*\(model\)"):
        train(recipe_of(demo_data, model={"attentions": 2}), tmp_path)


def test_a_loss_that_is_no_number_stops_with_step_rate_and_photos(demo_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(demo_data, steps=200, optimiser={"learning_rate": 1e12})
    with pytest.raises(LesaError, match=r"not finite at step \d+ \(learning rate 1e\+12; rank") as error:
        train(recipe, tmp_path)
    names = read_dataset(demo_data / "dataset").split("train").photos
    assert sum(name in str(error.value) for name in names) == recipe.batch_size
    assert str(tmp_path) in str(error.value)


def test_the_last_good_checkpoint_outlives_a_loss_that_is_no_number(demo_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(demo_data)

    def poison(progress: Progress) -> None:
        if progress.step == 5:
            torch.nn.init.constant_(weights[0], torch.nan)

    weights: list[torch.Tensor] = []
    build = Training.__init__

    def remember(self: Training, *arguments: object) -> None:
        build(self, *arguments)  # type: ignore[arg-type]
        weights.append(next(iter(self.model.parameters())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "__init__", remember)
        with pytest.raises(LesaError, match="not finite at step 6"):
            train(recipe, tmp_path / "poisoned", progress=poison)
    tensors, state = load_tensors(tmp_path / "poisoned" / "last.safetensors")
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in tensors.values())
    train(recipe, tmp_path / "poisoned")
    train(recipe, tmp_path / "whole")
    assert_same_checkpoint(tmp_path / "poisoned", tmp_path / "whole")


def test_a_full_disk_is_an_error_and_loses_no_checkpoint(demo_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "recipe.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in places(demo_data).items()]
    config.write_text("\n".join([*lines, "steps = 4", "validate_every = 4"]))
    command = [sys.executable, "-m", "lesa", "train", str(config), "-o", str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    other = [*command[:-1], str(tmp_path / "other")]
    full = subprocess.run(other, capture_output=True, text=True, check=False, preexec_fn=small_files)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert "File too large" in full.stderr
    assert not [path for path in (tmp_path / "other").iterdir() if path.name.startswith(".")]
    # With room again the same command makes the same run.
    assert subprocess.run(other, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "other" / "last.safetensors").exists()
    assert_same_checkpoint(tmp_path / "other", tmp_path / "run")
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_the_best_weights_are_those_of_the_best_validation(demo_data: Path, tmp_path: Path) -> None:
    train(recipe_of(demo_data, "contrastive", steps=60, validate_every=10), tmp_path)
    metrics = {line["step"]: line["validation"]["F1@5"] for line in log_of(tmp_path) if "validation" in line}  # type: ignore[index]
    state = load_tensors(tmp_path / "best.safetensors")[1]
    assert state["metric"] == max(metrics.values())
    assert metrics[state["step"]] == state["metric"]


def test_the_learning_rate_in_the_log_follows_the_rule(demo_data: Path, tmp_path: Path) -> None:
    settings = {"patience": 0, "learning_rate": 0.05}
    train(recipe_of(demo_data, steps=60, validate_every=3, optimiser=settings), tmp_path)
    average, rate = None, 0.05
    for line in log_of(tmp_path):
        if "validation" not in line:
            continue
        metric = line["validation"]["F1@5"]  # type: ignore[index]
        previous = metric if average is None else average
        average = 0.7 * previous + 0.3 * metric
        rate *= 0.8 if average < previous else 1
        assert line["learning_rate"] == pytest.approx(rate)
    assert rate < 0.05


def test_unlabelled_photos_are_left_out_on_request(demo_data: Path, tmp_path: Path) -> None:
    data = read_dataset(demo_data / "dataset")
    split = data.split("train")
    columns = data.vocabulary.seen_columns
    labelled = int((split.targets.dense(columns=columns) > 0).any(axis=1).sum())
    assert labelled < len(split.photos)
    recipe = recipe_of(demo_data, steps=None, epochs=1, skip_unlabelled=True, batch_size=100, validate_every=None)
    train(recipe, tmp_path)
    assert load_tensors(tmp_path / "last.safetensors")[1]["step"] == -(-labelled // 100)


def test_an_empty_split_is_named(demo_data: Path, tmp_path: Path) -> None:
    data = read_dataset(demo_data / "dataset")
    empty = Split((), Targets.from_present([], len(data.vocabulary.names)))
    lacking = Dataset(data.name, data.vocabulary, {**data.splits, "validation": empty}, data.source)
    write_dataset(lacking, tmp_path / "dataset")
    with pytest.raises(LesaError, match=r"split 'validation' .* holds no photo"):
        train(replace(recipe_of(demo_data), dataset=str(tmp_path / "dataset")), tmp_path / "run")


def test_a_run_of_another_version_is_refused(demo_data: Path, tmp_path: Path) -> None:
    train(recipe_of(demo_data, steps=1, validate_every=None), tmp_path)
    about = read_json(tmp_path / "run.json")
    write_json(tmp_path / "run.json", {**about, "format": "lesa-run-99"})
    with pytest.raises(LesaError, match="'lesa-run-99', this version reads 'lesa-run-2'"):
        open_run(tmp_path)


def test_a_damaged_checkpoint_is_named(demo_data: Path, tmp_path: Path) -> None:
    train(recipe_of(demo_data, steps=1, validate_every=None), tmp_path)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LesaError, match=r"last\.safetensors cannot be read"):
        evaluate_run(open_run(tmp_path))


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 100), photos=st.integers(1, 500))
def test_an_epoch_visits_every_photo_once_in_an_order_of_its_own(seed: int, epoch: int, photos: int) -> None:
    order = epoch_order(seed, epoch, photos)
    assert sorted(order.tolist()) == list(range(photos))
    np.testing.assert_array_equal(order, epoch_order.__wrapped__(seed, epoch, photos))
    if photos > 20:
        assert order.tolist() != epoch_order(seed, epoch + 1, photos).tolist()


def test_stop_handlers_are_left_alone_outside_the_main_thread(
    demo_data: Path, tmp_path: Path, run_in_thread: Callable[[Callable[[], object]], None]
) -> None:
    run_in_thread(lambda: train(recipe_of(demo_data, steps=1, validate_every=None), tmp_path))
    assert (tmp_path / "last.safetensors").exists()


@pytest.fixture
def run_in_thread() -> Callable[[Callable[[], object]], None]:
    from concurrent.futures import ThreadPoolExecutor

    def run(call: Callable[[], object]) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result()

    return run


def test_a_folder_that_holds_other_files_of_those_names_is_left_alone(demo_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "vectors.safetensors"
    table.write_bytes((demo_data / "vectors.safetensors").read_bytes())
    with pytest.raises(LesaError, match=r"is not a run but holds vectors\.safetensors"):
        train(replace(recipe_of(demo_data), vectors=(str(table),)), tmp_path)
    assert table.read_bytes() == (demo_data / "vectors.safetensors").read_bytes()


def test_weights_that_are_no_numbers_never_reach_a_checkpoint(demo_data: Path, tmp_path: Path) -> None:
    step = Training.one_step

    def last_step_breaks(self: Training) -> dict[str, torch.Tensor]:
        terms = step(self)
        if self.step == 7:
            torch.nn.init.constant_(next(iter(self.model.parameters())), torch.inf)
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "one_step", last_step_breaks)
        with pytest.raises(LesaError, match="the weights are not finite at step 8"):
            train(recipe_of(demo_data), tmp_path)
    assert load_tensors(tmp_path / "last.safetensors")[1]["step"] == 4


def test_evaluation_refuses_regions_of_another_kind(demo_data: Path, tmp_path: Path) -> None:
    run = train(recipe_of(demo_data, steps=1, validate_every=None), tmp_path / "run")
    shutil.copytree(demo_data / "regions", tmp_path / "regions")
    about = read_json(tmp_path / "regions" / "manifest.json")
    about["backbone"]["fingerprint"] = "another"
    write_json(tmp_path / "regions" / "manifest.json", about)
    with pytest.raises(LesaError, match="other regions than the run"):
        evaluate_run(run, regions=tmp_path / "regions")


def test_a_device_that_is_not_there_is_named(demo_data: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(LesaError, match="finds no GPU"):
        train(recipe_of(demo_data), tmp_path, device="cuda")
