"""Evaluation of a run: its scores for a split, evaluated as ZSL, GZSL and on the seen labels under named rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesa.errors import LesaError
from lesa.evaluation.report import Report, by_task
from lesa.files import replacing, write_json
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.predict import predict
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model


@dataclass(frozen=True)
class Evaluation:
    """A run's reports on one split."""

    run: Run
    data_set: str
    split: str
    checkpoint: str
    reports: dict[str, dict[str, Report]]
    """Rules, then task (`ZSL`, `GZSL`, `seen`), to report."""
    scores_NC: NDArray[np.float32]
    """The evaluated scores, unseen columns first; seen columns only, if the model knows seen labels only."""
    targets_NC: NDArray[np.int8]
    """Their targets."""
    vocabulary: Vocabulary
    """The labels of their columns."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds."""
        return {
            "run": str(self.run.folder),
            "split": self.split,
            "checkpoint": self.checkpoint,
            "data_set": self.data_set,
            "reports": {
                rules: {task: report.to_dict() for task, report in tasks.items()}
                for rules, tasks in self.reports.items()
            },
        }


def evaluate_run(
    run: Run,
    *,
    split: str = "test",
    rules: Sequence[str] = ("lesa",),
    k: Sequence[int] = (3, 5),
    checkpoint: str | None = None,
    dataset: Path | str | None = None,
    regions: Path | str | None = None,
) -> Evaluation:
    """Evaluate a run on a split of its data set; on its seen labels only, if the model knows no others.

    Args:
        run: the run.
        split: "test", "validation" or "train".
        rules: the named metric rules.
        k: the K of precision, recall and F1.
        checkpoint: "last" or "best"; the recipe's own if not given.
        dataset: where the data set is now, if not where the recipe says.
        regions: where its regions are now, if not where the recipe says.

    Raises:
        LesaError: the data set is not the run's, or the split is empty.
    """
    data = read_dataset(dataset or run.recipe.dataset)
    if data.vocabulary != run.vocabulary:
        raise LesaError(f"the labels of {dataset or run.recipe.dataset} are not those of the run {run.folder}")
    store = RegionStore.open(regions or run.recipe.regions)
    refuse_other_regions(run, store)
    part = data.split(split, store.failed())
    model = load_model(run, checkpoint)
    vocabulary, columns = run.vocabulary, slice(0, len(run.vocabulary.names))
    if model.seen_only:
        vocabulary, columns = Vocabulary(unseen=(), seen=vocabulary.seen), vocabulary.seen_columns
    scores_NC = predict(model, store, store.index(part.photos), torch.from_numpy(run.vectors_CE[columns]))
    targets_NC = part.targets.dense(columns=columns)
    reports = {name: by_task(scores_NC, targets_NC, vocabulary, rules=name, k=k) for name in rules}
    return Evaluation(
        run, data.name, split, checkpoint or run.recipe.checkpoint, reports, scores_NC, targets_NC, vocabulary
    )


def refuse_other_regions(run: Run, store: RegionStore) -> None:
    """Refuse a store with other regions than those of the run's training: scores on them would mean nothing.

    Raises:
        LesaError: names the difference.
    """
    for key in ("backbone", "preprocessing", "grid", "size", "projection"):
        if store.manifest.get(key) != run.regions.get(key):
            raise LesaError(
                f"{store.folder} holds other regions than the run {run.folder} was trained on: their {key} is "
                f"{store.manifest.get(key)}, the run's {run.regions.get(key)}"
            )


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write an evaluation as JSON."""
    write_json(path, evaluation.to_dict())


def write_scores(evaluation: Evaluation, folder: Path) -> None:
    """Write the scores and targets, as `scores.npy` and `targets.npy`, and the names of their columns."""
    for name, matrix_NC in ("scores", evaluation.scores_NC), ("targets", evaluation.targets_NC):
        with replacing(folder / f"{name}.npy") as temporary:
            np.save(temporary, matrix_NC)
    vocabulary = evaluation.vocabulary
    write_json(folder / "labels.json", {"unseen": list(vocabulary.unseen), "seen": list(vocabulary.seen)})
