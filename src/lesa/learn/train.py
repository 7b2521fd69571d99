"""Training: one loop. A run that was stopped and resumed gives exactly the same weights as one that was not.

The order of the photos is a pure function of (seed, epoch), and nothing else in a step is random. So weights,
optimiser, learning-rate rule and step are the whole state. A checkpoint holds all of them in one file.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesa.errors import LesaError
from lesa.evaluation.report import evaluate
from lesa.learn.datasets.dataset import Dataset, read_dataset
from lesa.learn.device import refuse_absent_gpu
from lesa.learn.losses import LOSSES
from lesa.learn.methods import build_model
from lesa.learn.model import KnownClasses, Scores
from lesa.learn.optim import LearningRateRule, make_optimiser
from lesa.learn.predict import predict, read_regions
from lesa.learn.recipe import Recipe, recipe_settings
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_tensors, open_run, restore_weights, save_tensors, write_run
from lesa.vectors import BUNDLED_ENCODERS, ENCODER, VectorSpace, fit_space, unit

LOG_EVERY = 50
"""Steps between two lines of the log."""


@dataclass(frozen=True)
class Progress:
    """How far a training run is; `train` reports it after each step."""

    step: int
    """Steps done."""
    steps: int
    """All steps of the run."""
    terms: dict[str, float]
    """The loss terms of the last step."""
    learning_rate: float
    metric: float | None
    """The last validation metric, in percent."""


def train(
    recipe: Recipe, folder: Path | str, *, device: str = "cpu", progress: Callable[[Progress], None] = lambda _: None
) -> Run:
    """Train by a recipe into a run's folder; an unfinished run of the same recipe is resumed.

    After SIGINT or SIGTERM it finishes the step, writes a checkpoint and stops.

    Args:
        recipe: data, model, loss and optimiser.
        folder: of the run.
        device: of PyTorch, such as `cpu` or `cuda`.
        progress: is called after each step.

    Raises:
        LesaError: the data do not fit together, the folder holds a run of another recipe, or the loss is not finite.
        KeyboardInterrupt: it was asked to stop; the same call resumes the run.
    """
    refuse_absent_gpu(device)
    dataset = read_dataset(recipe.dataset)
    store = RegionStore.open(recipe.regions)
    run = _begin_run(recipe, Path(folder), dataset, store)
    training = Training(run, dataset, store, device)
    with _stop_requests() as stopping:
        training.run_steps(progress, stopping)
    return run


def _begin_run(recipe: Recipe, folder: Path, dataset: Dataset, store: RegionStore) -> Run:
    """Return the run in `folder`; a new folder gets a new run, an older run must have the same recipe and data."""
    if (folder / "run.json").exists():
        run = open_run(folder)
        sized = replace(recipe, model=run.recipe.model) if _same_model(recipe, run.recipe) else recipe
        if run.recipe != sized or run.regions != _regions_of(store, dataset):
            raise LesaError(
                f"{folder} holds a run of another recipe or of other data ({_differences(run, sized)}): choose another "
                "folder, or remove this one"
            )
        return run
    there = [path.name for path in folder.glob("*.safetensors")] + [path.name for path in folder.glob("log.jsonl")]
    if there:
        raise LesaError(f"{folder} is not a run but holds {', '.join(sorted(there))}: choose another folder")
    space = fit_space(recipe.vectors, dataset.vocabulary.seen, centred=recipe.centred)
    vectors_CE = space.embed(dataset.vocabulary.names)
    model = replace(recipe.model, region_size=store.size, vector_size=vectors_CE.shape[1])
    if model.grid is None:
        model = replace(model, grid=store.grid)
    known, classes = _known_classes(store, space) if recipe.model.uses_classes else (None, None)
    run = Run(
        folder=folder,
        recipe=replace(recipe, model=model),
        vocabulary=dataset.vocabulary,
        vectors_CE=vectors_CE,
        space=space,
        regions=_regions_of(store, dataset),
        known=known,
        classes=classes,
    )
    write_run(run)
    return run


def _known_classes(store: RegionStore, space: VectorSpace) -> tuple[KnownClasses, dict[str, int]]:
    """Return the classes of the store's backbone with their label vectors, and how many are kept of how many.

    A name without a vector is left out, and so is a class that has no other name. The mean row is that of all classes.

    Raises:
        LesaError: the backbone has no such classes, or no name of any class has a vector.
    """
    classes = store.classes()
    if isinstance(classes, str):
        raise LesaError(f"model.settings.classes is on, but {store.folder} has no classes of its backbone: {classes}")
    names = space.covered(list(dict.fromkeys(name for synonyms in classes.names for name in synonyms)))
    if not names:
        raise LesaError(
            f"model.settings.classes is on, but {', '.join(space.sources)} has no vector for any name of the "
            f"{len(classes.names)} classes of the backbone, such as {classes.names[0][0]!r}: use a file with more "
            f"words, or the sentence encoder `{ENCODER}{next(iter(BUNDLED_ENCODERS))}`, which embeds any phrase"
        )
    vectors = dict(zip(names, space.embed(names), strict=True))
    with_vector = [[name for name in synonyms if name in vectors] for synonyms in classes.names]
    kept = [row for row, synonyms in enumerate(with_vector) if synonyms]
    means_KE = np.stack([np.mean([vectors[name] for name in with_vector[row]], axis=0) for row in kept])
    vectors_KE = unit(means_KE, [with_vector[row][0] for row in kept])
    rows_KD = (classes.rows_KD - classes.rows_KD.mean(axis=0))[kept]
    known = KnownClasses(torch.from_numpy(vectors_KE), torch.from_numpy(rows_KD))
    return known, {"kept": len(kept), "of": len(classes.names)}


def _same_model(recipe: Recipe, other: Recipe) -> bool:
    """Return whether two recipes have the same model, apart from the sizes that follow from the data."""
    sizes = {"region_size": 0, "vector_size": 0, "grid": None}
    return {**asdict(recipe.model), **sizes} == {**asdict(other.model), **sizes}


def _regions_of(store: RegionStore, dataset: Dataset) -> dict[str, Any]:
    """Describe the regions and the data set of a run, so that a change of data is noticed."""
    keys = ("backbone", "preprocessing", "grid", "size", "projection", "rows")
    return {
        **{key: store.manifest.get(key) for key in keys},
        "data_set": dataset.name,
        "data_source": dataset.source,
    }


def _differences(run: Run, recipe: Recipe) -> str:
    """Name the settings in which a run differs from a recipe."""
    old, new = recipe_settings(run.recipe), recipe_settings(recipe)
    changed = [key for key in new if new[key] != old[key]]
    return ", ".join(changed) if changed else "the data set or its regions"


class Training:
    """The state of a training run and its loop."""

    def __init__(self, run: Run, dataset: Dataset, store: RegionStore, device: str) -> None:
        recipe = run.recipe
        self.run, self.store, self.device = run, store, torch.device(device)
        self.seen = dataset.vocabulary.seen_columns
        vectors_SE = torch.from_numpy(run.vectors_CE[self.seen])
        failed = store.failed()
        self.split = dataset.split("train", failed)
        self.validation = dataset.split("validation", failed)
        self.validation_rows = store.index(self.validation.photos)
        self.photos = self.training_photos()
        self.rows = store.index([self.split.photos[i] for i in self.photos])
        self.epoch_steps = -(-len(self.photos) // recipe.batch_size)
        self.steps = recipe.steps or (recipe.epochs or 0) * self.epoch_steps
        self.validate_every = recipe.validate_every or self.epoch_steps

        self.model = build_model(recipe.model, vectors_SE, recipe.seed, run.known).to(self.device)
        self.summed_steps = min(self.epoch_steps, self.steps) if self.model.summed or recipe.loss.is_closed_form else 0
        self.vectors_SE = vectors_SE.to(self.device)
        self.optimiser = make_optimiser(recipe.optimiser, self.model)
        start = recipe.optimiser.learning_rate
        self.rule = LearningRateRule(start, floor=1e-3 * start, patience=recipe.optimiser.patience)
        self.step = 0
        self.metric: float | None = None
        self.best: float | None = None
        self.window = _LossMeans()
        if run.checkpoint("last").exists():
            self.restore()
        else:
            run.log.unlink(missing_ok=True)

    def training_photos(self) -> NDArray[np.int64]:
        """Return the indices of the photos to train on, in the split."""
        photos = np.arange(len(self.split.photos))
        if self.run.recipe.skip_unlabelled:
            seen = self.split.targets.entries[:, self.seen]
            photos = photos[np.asarray((seen > 0).sum(axis=1)).ravel() > 0]
        if not len(photos):
            raise LesaError("no training photo has a seen label: check the labels of the split 'train'")
        return photos

    def run_steps(self, progress: Callable[[Progress], None], stopping: Callable[[], bool]) -> None:
        """Run the steps that remain.

        Raises:
            LesaError: the loss or the weights are not finite.
            KeyboardInterrupt: `stopping` returned true.
        """
        while self.step < self.steps:
            terms = self.one_step()
            self.window.add(terms)
            self.step += 1
            if self.step % self.validate_every == 0 or self.step == self.steps:
                self.refuse_broken_weights(terms)
                self.validate()
                self.save()
            elif self.step % LOG_EVERY == 0:
                self.log()
            progress(Progress(self.step, self.steps, self.window.latest, self.rule.rate, self.metric))
            if stopping() and self.step < self.steps:
                self.refuse_broken_weights(terms)
                self.save()
                raise KeyboardInterrupt

    def refuse_broken_weights(self, terms: dict[str, Tensor]) -> None:
        """Refuse weights that are infinite or NaN after the last step; they are neither validated nor saved."""
        if not all(torch.isfinite(weight).all() for weight in self.model.parameters()):
            raise self.not_finite("the weights are", terms, self.step - 1)

    def one_step(self) -> dict[str, Tensor]:
        """Take one optimiser step and return its loss terms.

        Raises:
            LesaError: the loss is not finite.
        """
        batch = self.batch(self.step)
        regions_BRD = read_regions(self.store, self.rows[batch], self.device)
        targets_BS = torch.from_numpy(self.split.targets.dense(self.photos[batch], self.seen)).to(self.device)
        self.model.train()
        loss = self.run.recipe.loss
        if self.step < self.summed_steps:
            self.one_sum(regions_BRD, targets_BS)
        if loss.is_closed_form:
            # It has no loss.
            return {"total": torch.zeros(())}
        out: Scores = self.model(regions_BRD, self.vectors_SE)
        terms = LOSSES[loss.kind](loss, out, self.vectors_SE, targets_BS)
        if not torch.isfinite(terms["total"]):
            raise self.not_finite("the loss is", terms, self.step)
        self.optimiser.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return {name: term.detach() for name, term in terms.items()}

    def one_sum(self, regions_BRD: Tensor, targets_BS: Tensor) -> None:
        """Add a batch to the sums of a closed form, and solve it after the last batch."""
        with torch.no_grad():
            self.model.accumulate(regions_BRD, self.vectors_SE, targets_BS)
            if self.step + 1 == self.summed_steps:
                self.model.solve()

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the batch of a step, as positions in the list of training photos."""
        epoch, within = divmod(step, self.epoch_steps)
        order = epoch_order(self.run.recipe.seed, epoch, len(self.photos))
        return order[within * self.run.recipe.batch_size : (within + 1) * self.run.recipe.batch_size]

    def not_finite(self, what: str, terms: dict[str, Tensor], step: int) -> LesaError:
        """Return the error of a step whose loss or weights are not finite.

        `what` is the start of the message, such as "the loss is".
        """
        batch = self.batch(step)
        values = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
        photos = ", ".join(self.split.photos[i] for i in self.photos[batch])
        return LesaError(
            f"{what} not finite at step {step + 1} (learning rate {self.rule.rate:g}; {values}). The last "
            f"checkpoint is kept in {self.run.folder}. Lower optimiser.learning_rate, or check these photos' region "
            f"features: {photos}"
        )

    def validate(self) -> None:
        """Score the validation photos; the metric changes the learning rate and decides which weights are the best."""
        scores_NS = predict(self.model, self.store, self.validation_rows, self.vectors_SE)
        targets_NS = self.validation.targets.dense(columns=self.seen)
        self.metric = validation_metric(self.run.recipe.validation_metric, scores_NS, targets_NS)
        if self.run.recipe.optimiser.adaptive:
            rate = self.rule.update(self.metric)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        self.log(validation={self.run.recipe.validation_metric: self.metric})
        if self.best is None or self.metric > self.best:
            self.best = self.metric
            save_tensors(self.run.checkpoint("best"), self.weights(), {"step": self.step, "metric": self.metric})

    def log(self, **more: Any) -> None:
        """Append a line to the log and start a new mean of the loss terms."""
        line = {"step": self.step, "learning_rate": self.rule.rate, **self.window.close(), **more}
        with self.run.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def weights(self) -> dict[str, Tensor]:
        """Return the model's tensors under the names that a checkpoint gives them."""
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint from which training is resumed."""
        slots = self.optimiser.state_dict()["state"]
        tensors = {f"optimiser.{i}.{name}": value for i, slot in slots.items() for name, value in slot.items()}
        state = {
            "step": self.step,
            "rule": asdict(self.rule),
            "metric": self.metric,
            "best": self.best,
            "log_bytes": self.run.log.stat().st_size if self.run.log.exists() else 0,
        }
        save_tensors(self.run.checkpoint("last"), self.weights() | tensors, state)

    def restore(self) -> None:
        """Read the last checkpoint, and remove log lines that were written after it."""
        path = self.run.checkpoint("last")
        tensors, state = load_tensors(path)
        restore_weights(self.model, tensors, path)
        self.rule = LearningRateRule(**state["rule"])
        self.step, self.metric, self.best = state["step"], state["metric"], state["best"]
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".", 2)
                slots.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        for group in groups:
            group["lr"] = self.rule.rate
        self.optimiser.load_state_dict({"state": slots, "param_groups": groups})
        if self.run.log.exists():
            with self.run.log.open("r+b") as file:
                file.truncate(min(state["log_bytes"], self.run.log.stat().st_size))


class _LossMeans:
    """The mean of each loss term since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0
        self.latest: dict[str, float] = {}
        self.since = time.monotonic()

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of one step."""
        self.latest = {name: float(term) for name, term in terms.items()}
        for name, value in self.latest.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def close(self) -> dict[str, Any]:
        """Return the means and the steps per second, and start again."""
        now = time.monotonic()
        means = {name: value / self.count for name, value in self.sums.items()}
        rate = self.count / max(now - self.since, 1e-9)
        self.sums, self.count, self.since = {}, 0, now
        return {"loss": means, "steps_per_second": round(rate, 2)}


@lru_cache(maxsize=1)
def epoch_order(seed: int, epoch: int, photos: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits `photos` photos: a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(photos)


def validation_metric(name: str, scores_NS: NDArray[np.float32], targets_NS: NDArray[np.int8]) -> float:
    """Return micro F1@5 or mAP of the seen labels under the rules `lesa`, in percent."""
    k = min(5, scores_NS.shape[1])
    evaluated = evaluate(scores_NS, targets_NS, rules="lesa", k=(k,))
    return evaluated.f1[k] if name == "F1@5" else evaluated.mean_average_precision


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM came; a second signal ends the program at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)

    # Only the main thread receives signals and may set a handler.
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
