"""A list of methods x seeds on one prepared data set: tuned alike, trained by one loop, judged by the same rules.

A method's grid is tried without unseen labels and test photos: every fifth seen label is held out of the training, as
if it were unseen, and judged on the validation photos. (Labels that were trained say nothing about labels that were
not: they would choose too little regularisation.) The chosen setting is then trained with all seen labels.

OUT/trials              the data set of the trials
OUT/METHOD/trials/N     the runs of the method's grid, of the first seed
OUT/METHOD/chosen.json  the setting that was best, and what every trial gave
OUT/METHOD/seed-N       its runs; `evaluation.json` in each: metrics, their bootstrap draws, time and memory

Every run has a process of its own, so that its memory can be told; what is done is skipped.
"""

import multiprocessing
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from lesa.errors import LesaError
from lesa.evaluation.bootstrap import draw_metrics
from lesa.evaluation.rules import evaluate
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
RULES = "lesa"
HELD_OUT = 5
CHOSEN_BY = ("F1@5", "mAP")


@dataclass(frozen=True)
class Job:
    """One run and what to do with it."""

    recipe: Recipe
    folder: Path
    dataset: str
    """The data set whose seen and unseen labels tasks are made of."""
    on_test: bool
    """Whether to judge the test photos; else, for a trial, the validation photos."""
    device: str
    threads: int


def _refuse_another(comparison: Comparison, out: Path) -> None:
    """Refuse a folder that holds methods of these names with other settings; write down what it holds now.

    Raises:
        LesaError: it does; what differs is named.
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


# Running


def compare(comparison: Comparison, out: Path, device: str, jobs: int) -> dict[str, list[dict[str, Any]]]:
    """Run all that is left and return what each method's runs gave (`evaluation.json`), by method.

    Raises:
        LesaError: a run failed; the others are kept.
    """
    dataset = read_dataset(comparison.dataset)
    trial = _trial_data(dataset)
    _refuse_few_labels(dataset, trial)
    out.mkdir(parents=True, exist_ok=True)
    _refuse_another(comparison, out)
    for name, changed in {TRIALS: trial, SUPERVISED: _supervised_data(dataset)}.items():
        if not (out / name / "dataset.json").exists():
            write_dataset(changed, out / name)
        elif read_dataset(out / name).source != changed.source:
            raise LesaError(f"{comparison.dataset} is not the data set that {out} was begun with: give another folder")
    threads = max(torch.get_num_threads() // jobs, 1)

    def job(method: Method, setting: Mapping[str, Any], seed: int, folder: Path, on_test: bool) -> Job:
        recipe = method.recipe(setting, seed)
        if method.supervised or not on_test:
            recipe = replace(recipe, dataset=str(out / (SUPERVISED if method.supervised else TRIALS)))
        return Job(recipe, folder, comparison.dataset, on_test, device, threads)

    trials = {
        method.name: [
            job(method, setting, comparison.seeds[0], out / method.name / "trials" / str(number), on_test=False)
            for number, setting in enumerate(method.trials())
        ]
        for method in comparison.methods
        if method.grid and not (out / method.name / "chosen.json").exists()
    }
    _run_jobs([each for group in trials.values() for each in group], jobs, "trials")
    for method in comparison.methods:
        if method.name in trials:
            _choose(method, trials[method.name], out / method.name / "chosen.json")
    chosen = {
        method.name: read_json(out / method.name / "chosen.json")["chosen"] if method.grid else {}
        for method in comparison.methods
    }
    finals = {
        method.name: [
            job(method, chosen[method.name], seed, out / method.name / f"seed-{seed}", on_test=True)
            for seed in comparison.seeds
        ]
        for method in comparison.methods
    }
    _run_jobs([each for group in finals.values() for each in group], jobs, "runs")
    return {
        name: [read_json(each.folder / "evaluation.json") | {"seed": each.recipe.seed} for each in group]
        for name, group in finals.items()
    }


def _choose(method: Method, trials: Sequence[Job], path: Path) -> None:
    """Write down the setting with the best mean of F1@5 and mAP, and what every trial gave.

    Both, as they reward different things: F1 at K the order of labels within a photo, mAP that of photos for a label.
    """
    metrics = [read_json(each.folder / "evaluation.json")["metrics"] for each in trials]
    means = [np.mean([task[name] for task in each.values() for name in CHOSEN_BY]) for each in metrics]
    best = method.trials()[int(np.argmax(means))]
    rows = [
        {"setting": setting, "mean": round(float(mean), 3), **each}
        for setting, mean, each in zip(method.trials(), means, metrics, strict=True)
    ]
    write_json(path, {"chosen": best, "trials": rows})


def _trial_data(dataset: Dataset) -> Dataset:
    """Return the data set of the trials: no test photo, no unseen label, every fifth seen label as an unseen one."""
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
    """Refuse a data set whose tasks have fewer labels than K, before anything is trained.

    Raises:
        LesaError: it is one.
    """
    for names in (dataset.vocabulary.unseen, trial.vocabulary.unseen, trial.vocabulary.seen):
        if names != () and len(names) < max(K):
            raise LesaError(
                f"data set {dataset.name!r}: K is {max(K)}, but a task has {len(names)} labels only (a fifth of the "
                "seen labels is held out for the trials)"
            )


def _supervised_data(dataset: Dataset) -> Dataset:
    """Return the data set with every label as a seen one, in the same columns."""
    vocabulary = Vocabulary(unseen=(), seen=dataset.vocabulary.names)
    source = {**dataset.source, "supervised": True}
    return replace(dataset, name=f"{dataset.name}-supervised", vocabulary=vocabulary, source=source)


def _run_jobs(todo: Sequence[Job], jobs: int, title: str) -> None:
    """Run the jobs that are not done, `jobs` at a time, each in a process of its own, with a progress bar.

    Raises:
        LesaError: one of them failed, with its message.
    """
    left = [each for each in todo if not (each.folder / "evaluation.json").exists()]
    if not left:
        return
    with _stopping_children(), ThreadPoolExecutor(jobs) as pool, progress_bar(title, len(left)) as advance:
        for number, (each, problem) in enumerate(zip(left, pool.map(_run_alone, left), strict=True), start=1):
            if problem:
                pool.shutdown(cancel_futures=True)
                raise LesaError(f"{each.folder}: {problem}")
            advance(number, len(left), str(each.folder))


@contextmanager
def _stopping_children() -> Iterator[None]:
    """Let SIGTERM stop the runs, too, each with a checkpoint; SIGINT reaches them by itself."""

    def stop(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_alone(job: Job) -> str:
    """Do a job in a new process and return what went wrong, if anything."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_do_job, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        problem = str(receiver.recv())
    except EOFError:
        problem = ""
    process.join()
    return problem or (f"its process ended with code {process.exitcode}" if process.exitcode else "")


def _do_job(job: Job, sender: Any) -> None:
    """Train, judge and write `evaluation.json`; tell the parent what went wrong."""
    torch.set_num_threads(job.threads)
    try:
        run = train(job.recipe, job.folder, device=job.device)
        evaluated = _evaluate_test(run, job.dataset) if job.on_test else _evaluate_validation(run)
        # Kilobytes on Linux, bytes on macOS.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        about = {"seconds": training_seconds(read_log(run)), "memory": memory}
        write_json(job.folder / "evaluation.json", {**about, **evaluated})
        sender.send("")
    except (LesaError, OSError) as error:
        sender.send(str(error))
    except KeyboardInterrupt:
        sender.send("stopped; the same command goes on")


def _evaluate_validation(run: Run) -> dict[str, Any]:
    """Return the metrics that a trial is chosen by: ZSL and GZSL, or the seen labels' where none is held out."""
    reports = evaluate_run(run, split="validation", rules=[RULES], k=K).reports[RULES]
    names = ("ZSL", "GZSL") if "ZSL" in reports else ("seen",)
    return {"metrics": {task: reports[task].metrics() for task in names}}


def _evaluate_test(run: Run, dataset: str) -> dict[str, Any]:
    """Return metrics, fingerprint and bootstrap draws of each task on the test photos."""
    evaluated = evaluate_run(run, rules=[RULES], k=K)
    vocabulary = read_dataset(dataset).vocabulary
    metrics, draws = {}, {}
    for task, part in _tasks(vocabulary, evaluated.vocabulary).items():
        matrices = evaluated.scores_NC[:, part], evaluated.targets_NC[:, part]
        metrics[task] = evaluate(*matrices, RULES, K).metrics()
        drawn = draw_metrics(*matrices, RULES, K)
        draws[task] = {name: [round(value, 4) for value in values.tolist()] for name, values in drawn.items()}
    return {"metrics": metrics, "draws": draws}


def _tasks(vocabulary: Vocabulary, scored: Vocabulary) -> dict[str, slice]:
    """Return the columns of each task that has labels; a method that scored the seen labels only has one."""
    if scored.names != vocabulary.names:
        return {"seen": slice(0, len(scored.names))}
    parts = {"ZSL": vocabulary.unseen_columns, "GZSL": slice(0, len(vocabulary.names)), "seen": vocabulary.seen_columns}
    return parts if vocabulary.unseen else {"seen": vocabulary.seen_columns}


def chance(dataset: str, draws: int = 20) -> dict[str, dict[str, float]]:
    """Return the mean metrics of random scores on the test photos, by task."""
    data = read_dataset(dataset)
    targets_NC = data.split("test").targets.dense()
    generator = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(draws):
        scores_NC = generator.random(targets_NC.shape, dtype=np.float32)
        for task, part in _tasks(data.vocabulary, data.vocabulary).items():
            for name, value in evaluate(scores_NC[:, part], targets_NC[:, part], RULES, K).metrics().items():
                found.setdefault(task, {}).setdefault(name, []).append(value)
    return {task: {name: float(np.mean(values)) for name, values in each.items()} for task, each in found.items()}
