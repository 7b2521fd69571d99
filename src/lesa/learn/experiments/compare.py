"""A list of methods x seeds on one prepared data set: same tuning, same training loop, same metric rules.

The settings in a method's grid are tried without unseen labels and test photos. Every fifth seen label is left out of
the training, as if it were unseen, and the trials are evaluated on the validation photos. (A choice by labels from
training would give too little regularisation, because they say nothing about new labels.) The best setting is then
trained with all seen labels.

OUT/trials              the data set of the trials
OUT/supervised          the data set of supervised methods: all labels are seen
OUT/METHOD/trials/N     the runs of the method's grid, with the first seed
OUT/METHOD/chosen.json  the best setting, and the results of all trials
OUT/METHOD/seed-N       the method's runs; `evaluation.json` in each: metrics, their bootstrap draws, time and memory

Every run has its own process, so that its memory can be measured. Finished runs are skipped.
"""

import multiprocessing
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from lesa.errors import LesaError
from lesa.evaluation.bootstrap import draw_metrics
from lesa.evaluation.report import evaluate, task_columns
from lesa.files import read_json, write_json
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, read_dataset, write_dataset
from lesa.learn.evaluate import evaluate_run
from lesa.learn.experiments.comparison import SUPERVISED, TRIALS, Comparison, Method
from lesa.learn.recipe import Recipe
from lesa.learn.run import Run, read_log, training_seconds
from lesa.learn.train import train
from lesa.progress import progress_bar

K = (3, 5)
RULES_NAME = "lesa"
HELD_OUT = 5
CHOSEN_BY = ("F1@5", "mAP")


@dataclass(frozen=True)
class Job:
    """One run: its training and its evaluation."""

    recipe: Recipe
    folder: Path
    dataset: str
    """The data set whose seen and unseen labels are the tasks."""
    on_test: bool
    """Whether the test photos are evaluated; if not (a trial), the validation photos are."""


def compare(comparison: Comparison, out: Path, device: str, jobs: int) -> dict[str, list[dict[str, Any]]]:
    """Do all runs that are not finished, and return the results of each method's runs (`evaluation.json`) by method.

    Raises:
        LesaError: a run failed; the other runs are kept.
    """
    _prepare_folder(comparison, out)
    trials = _trial_jobs(comparison, out)
    _run_jobs([each for group in trials.values() for each in group], device, jobs, "trials")
    for method in comparison.methods:
        if method.name in trials:
            _choose(method, trials[method.name], out / method.name / "chosen.json")
    finals = _final_jobs(comparison, out)
    _run_jobs([each for group in finals.values() for each in group], device, jobs, "runs")
    return {
        name: [read_json(each.folder / "evaluation.json") | {"seed": each.recipe.seed} for each in group]
        for name, group in finals.items()
    }


# The folder and its data sets


def _prepare_folder(comparison: Comparison, out: Path) -> None:
    """Write the settings and the changed data sets, or check that they are those of an earlier call.

    Raises:
        LesaError: they differ, or a task has fewer labels than K.
    """
    dataset = read_dataset(comparison.dataset)
    trial = _trial_data(dataset)
    _refuse_few_labels(dataset, trial)
    out.mkdir(parents=True, exist_ok=True)
    _refuse_other_settings(comparison, out)
    for name, changed in {TRIALS: trial, SUPERVISED: _supervised_data(dataset)}.items():
        if not (out / name / "dataset.json").exists():
            write_dataset(changed, out / name)
        elif read_dataset(out / name).source != changed.source:
            raise LesaError(f"{comparison.dataset} is not the data set with which {out} was begun: give another folder")


def _refuse_other_settings(comparison: Comparison, out: Path) -> None:
    """Refuse a folder that has methods of the same name with other settings; else write its settings.

    Raises:
        LesaError: the folder has such methods, or another data set.
    """
    path = out / "comparison.json"
    asked: dict[str, Any] = {
        method.name: [method.settings, method.grid, method.supervised] for method in comparison.methods
    }
    begun: dict[str, Any] = read_json(path) if path.exists() else {"dataset": comparison.dataset, "methods": {}}
    if begun["dataset"] != comparison.dataset:
        raise LesaError(f"{out} compares methods on {begun['dataset']}, not {comparison.dataset}: give another folder")
    for name, settings in asked.items():
        if begun["methods"].get(name, settings) != settings:
            raise LesaError(f"{out} holds method {name!r} with other settings: rename it, or give another folder")
    write_json(path, {"dataset": comparison.dataset, "methods": begun["methods"] | asked})


def _trial_data(dataset: Dataset) -> Dataset:
    """Return the data set of the trials: no test photos; the only unseen labels are every fifth seen label."""
    seen = dataset.vocabulary.seen
    held_out = seen[HELD_OUT - 1 :: HELD_OUT]
    vocabulary = Vocabulary(unseen=held_out, seen=tuple(name for name in seen if name not in set(held_out)))
    column = {name: at for at, name in enumerate(dataset.vocabulary.names)}
    columns = [column[name] for name in vocabulary.names]
    splits = {
        name: replace(split, targets=replace(split.targets, entries=split.targets.entries[:, columns]))
        for name, split in dataset.splits.items()
        if name != "test"
    }
    source = {**dataset.source, "held_out": list(held_out)}
    return Dataset(f"{dataset.name}-trials", vocabulary, splits, source)


def _refuse_few_labels(dataset: Dataset, trial: Dataset) -> None:
    """Refuse a data set whose tasks have fewer labels than K, before anything is trained."""
    for names in (dataset.vocabulary.unseen, trial.vocabulary.unseen, trial.vocabulary.seen):
        if names != () and len(names) < max(K):
            raise LesaError(
                f"data set {dataset.name!r}: K is {max(K)}, but a task has only {len(names)} labels (the trials leave "
                "out one fifth of the seen labels): use a data set with more labels"
            )


def _supervised_data(dataset: Dataset) -> Dataset:
    """Return the data set with all labels as seen labels, in the same columns."""
    vocabulary = Vocabulary(unseen=(), seen=dataset.vocabulary.names)
    source = {**dataset.source, "supervised": True}
    return replace(dataset, name=f"{dataset.name}-supervised", vocabulary=vocabulary, source=source)


# The jobs


def _trial_jobs(comparison: Comparison, out: Path) -> dict[str, list[Job]]:
    """Return the trials, by method, of all methods whose setting must still be chosen."""
    return {
        method.name: [
            _make_job(comparison, method, setting, comparison.seeds[0], out, f"trials/{number}")
            for number, setting in enumerate(method.trials())
        ]
        for method in comparison.methods
        if method.grid and not (out / method.name / "chosen.json").exists()
    }


def _final_jobs(comparison: Comparison, out: Path) -> dict[str, list[Job]]:
    """Return the runs of each method with its chosen setting, one for each seed."""
    chosen = {
        method.name: read_json(out / method.name / "chosen.json")["chosen"] if method.grid else {}
        for method in comparison.methods
    }
    return {
        method.name: [
            _make_job(comparison, method, chosen[method.name], seed, out, f"seed-{seed}", on_test=True)
            for seed in comparison.seeds
        ]
        for method in comparison.methods
    }


def _make_job(
    comparison: Comparison,
    method: Method,
    setting: Mapping[str, Any],
    seed: int,
    out: Path,
    name: str,
    on_test: bool = False,
) -> Job:
    recipe = method.recipe(setting, seed)
    if method.supervised or not on_test:
        recipe = replace(recipe, dataset=str(out / (SUPERVISED if method.supervised else TRIALS)))
    return Job(recipe, out / method.name / name, comparison.dataset, on_test)


def _choose(method: Method, trials: Sequence[Job], path: Path) -> None:
    """Write the setting with the best mean of F1@5 and mAP, and the results of all trials.

    Both metrics are used: F1 at K rewards a good order of the labels in a photo, mAP a good order of the photos for a
    label.
    """
    metrics = [read_json(each.folder / "evaluation.json")["metrics"] for each in trials]
    means = [np.mean([task[name] for task in each.values() for name in CHOSEN_BY]) for each in metrics]
    best = method.trials()[int(np.argmax(means))]
    rows = [
        {"setting": setting, "mean": round(float(mean), 3), **each}
        for setting, mean, each in zip(method.trials(), means, metrics, strict=True)
    ]
    write_json(path, {"chosen": best, "trials": rows})


# Running


def _run_jobs(todo: Sequence[Job], device: str, jobs: int, title: str) -> None:
    """Run the jobs that are not finished, `jobs` at a time, each in its own process, with a progress bar.

    Raises:
        LesaError: one of them failed, with its message.
    """
    run = partial(_run_alone, device=device, threads=max(torch.get_num_threads() // jobs, 1))
    left = [each for each in todo if not (each.folder / "evaluation.json").exists()]
    if not left:
        return
    with _stopping_children(), ThreadPoolExecutor(jobs) as pool, progress_bar(title, len(left)) as advance:
        for number, (each, problem) in enumerate(zip(left, pool.map(run, left), strict=True), start=1):
            if problem:
                pool.shutdown(cancel_futures=True)
                raise LesaError(f"{each.folder}: {problem}")
            advance(number, len(left), str(each.folder))


@contextmanager
def _stopping_children() -> Iterator[None]:
    """Let SIGTERM also stop the runs, each with a checkpoint. The terminal itself sends Ctrl-C to the runs."""

    def stop(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_alone(job: Job, device: str, threads: int) -> str:
    """Do a job in a new process. Return the message of its error, or an empty text."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_do_job, args=(job, device, threads, sender), daemon=True)
    process.start()
    sender.close()
    try:
        problem = str(receiver.recv())
    except EOFError:
        problem = ""
    process.join()
    return problem or (f"its process ended with code {process.exitcode}" if process.exitcode else "")


def _do_job(job: Job, device: str, threads: int, sender: Any) -> None:
    """Train, evaluate and write `evaluation.json`; send the message of an error to the parent process."""
    torch.set_num_threads(threads)
    try:
        run = train(job.recipe, job.folder, device=device)
        evaluated = _evaluate_test(run, job.dataset) if job.on_test else _evaluate_validation(run)
        # Kilobytes on Linux, bytes on macOS.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cost = {"seconds": training_seconds(read_log(run)), "memory": memory}
        write_json(job.folder / "evaluation.json", {**cost, **evaluated})
        sender.send("")
    except (LesaError, OSError) as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sender.send("stopped: the same command continues it")


def _evaluate_validation(run: Run) -> dict[str, Any]:
    """Return the metrics that choose a trial: those of ZSL and GZSL, or of the seen labels if no label is left out."""
    reports = evaluate_run(run, split="validation", rules=[RULES_NAME], k=K).reports[RULES_NAME]
    names = ("ZSL", "GZSL") if "ZSL" in reports else ("seen",)
    return {"metrics": {task: reports[task].metrics() for task in names}}


def _evaluate_test(run: Run, dataset: str) -> dict[str, Any]:
    """Return metrics, fingerprint and bootstrap draws of each task on the test photos."""
    evaluated = evaluate_run(run, rules=[RULES_NAME], k=K)
    vocabulary = read_dataset(dataset).vocabulary
    metrics, draws = {}, {}
    for task, part in _scored_columns(vocabulary, evaluated.vocabulary).items():
        matrices = evaluated.scores_NC[:, part], evaluated.targets_NC[:, part]
        metrics[task] = evaluate(*matrices, RULES_NAME, K).metrics()
        drawn = draw_metrics(*matrices, RULES_NAME, K)
        draws[task] = {name: [round(value, 4) for value in values.tolist()] for name, values in drawn.items()}
    return {"metrics": metrics, "draws": draws}


def _scored_columns(vocabulary: Vocabulary, scored: Vocabulary) -> dict[str, slice]:
    """Return the columns of each task. A method that scored only the seen labels has one task."""
    if scored.names != vocabulary.names:
        return {"seen": slice(0, len(scored.names))}
    columns = task_columns(len(vocabulary.unseen), len(vocabulary.names))
    # Without unseen labels, GZSL and the seen labels are the same task.
    return columns if vocabulary.unseen else {"seen": columns["seen"]}


def chance_metrics(dataset: str, draws: int = 20) -> dict[str, dict[str, float]]:
    """Return the mean metrics of random scores on the test photos, by task."""
    data = read_dataset(dataset)
    targets_NC = data.split("test").targets.dense()
    generator = np.random.default_rng(0)
    drawn: dict[str, dict[str, list[float]]] = {}
    for _ in range(draws):
        scores_NC = generator.random(targets_NC.shape, dtype=np.float32)
        for task, part in _scored_columns(data.vocabulary, data.vocabulary).items():
            for name, value in evaluate(scores_NC[:, part], targets_NC[:, part], RULES_NAME, K).metrics().items():
                drawn.setdefault(task, {}).setdefault(name, []).append(value)
    return {task: {name: float(np.mean(values)) for name, values in each.items()} for task, each in drawn.items()}
