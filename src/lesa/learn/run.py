"""A run's folder: everything that rebuilds a trained model, and its checkpoints.

run.json              recipe, labels, the sources of their vectors, a description of the regions, and how many of the
                      backbone's own classes have a vector
vectors.safetensors   the label vectors (unseen first, then seen), and the means that were subtracted from them
last.safetensors      weights, optimiser and state of the last checkpoint, from which training is resumed
best.safetensors      the best weights on validation
log.jsonl             loss terms, learning rate and validation metrics
"""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lesa.errors import LesaError
from lesa.files import read_format, replacing, write_json
from lesa.labels import Vocabulary
from lesa.learn.methods import build_model
from lesa.learn.model import KnownClasses, Model
from lesa.learn.recipe import Recipe, parse_recipe, recipe_settings
from lesa.vectors import VectorSpace

FORMAT = "lesa-run-2"
KNOWN = "known-classes.safetensors"
"""The file of the backbone's own classes, in the folder of a run whose method uses them."""


@dataclass(frozen=True)
class Run:
    """A run, read from its folder."""

    folder: Path
    recipe: Recipe
    vocabulary: Vocabulary
    vectors_CE: NDArray[np.float32]
    """The vocabulary's label vectors, unseen first."""
    space: VectorSpace
    """How any other label becomes a vector."""
    regions: dict[str, Any]
    """Description of its regions: backbone, grid, size, projection."""
    known: KnownClasses | None = None
    """The backbone's own classes that have a vector, if the method uses them."""
    classes: dict[str, int] | None = None
    """How many classes were `kept` because they have a vector, `of` how many; if the method uses them."""

    @property
    def log(self) -> Path:
        """The training's log, one JSON object per line."""
        return self.folder / "log.jsonl"

    def checkpoint(self, name: str) -> Path:
        """The path of the checkpoint `last` or `best`."""
        return self.folder / f"{name}.safetensors"


def write_run(run: Run) -> None:
    """Write the description of a run; `run.json` is written last, so that a folder with it can be opened."""
    tensors = {"vectors": torch.from_numpy(run.vectors_CE)}
    if run.space.means_by_source is not None:
        tensors |= {f"mean.{i}": torch.from_numpy(mean) for i, mean in enumerate(run.space.means_by_source)}
    save_tensors(run.folder / "vectors.safetensors", tensors, {})
    if run.known is not None:
        save_tensors(run.folder / KNOWN, run.known._asdict(), {})
    write_json(
        run.folder / "run.json",
        {
            "format": FORMAT,
            "recipe": recipe_settings(run.recipe),
            "unseen": list(run.vocabulary.unseen),
            "seen": list(run.vocabulary.seen),
            "regions": run.regions,
            **({"classes": run.classes} if run.classes is not None else {}),
            "made_with": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "threads": torch.get_num_threads(),
            },
        },
    )


def open_run(folder: Path | str) -> Run:
    """Open a run's folder.

    Raises:
        LesaError: the folder is not a run, has another version, or is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise LesaError(f"{folder} is not a run (no run.json): make one with `lesa train`")
    manifest = read_format(folder / "run.json", FORMAT, "train it again, or open it with the version that made it")
    missing = {"recipe", "unseen", "seen", "regions"} - set(manifest)
    if missing:
        raise LesaError(f"{folder / 'run.json'} lacks {', '.join(sorted(missing))}: it is damaged; train again")
    recipe = parse_recipe(manifest["recipe"], where=str(folder / "run.json"))
    tensors, _ = load_tensors(folder / "vectors.safetensors")
    means = [tensors[f"mean.{i}"].numpy() for i in range(len(tensors) - 1)] if recipe.centred else None
    return Run(
        folder=folder,
        recipe=recipe,
        vocabulary=Vocabulary(unseen=tuple(manifest["unseen"]), seen=tuple(manifest["seen"])),
        vectors_CE=tensors["vectors"].numpy(),
        space=VectorSpace(sources=recipe.vectors, means_by_source=means),
        regions=manifest["regions"],
        known=_read_known(folder / KNOWN) if recipe.model.uses_classes else None,
        classes=manifest.get("classes"),
    )


def _read_known(path: Path) -> KnownClasses:
    tensors, _ = load_tensors(path)
    if set(tensors) != set(KnownClasses._fields):
        raise LesaError(f"{path} does not hold the classes of a backbone: it is damaged; train again")
    return KnownClasses(**tensors)


def load_model(run: Run, checkpoint: str | None = None, device: str = "cpu") -> Model:
    """Return the trained model, with the weights of the recipe's checkpoint unless another one is named.

    Raises:
        LesaError: the run has no such checkpoint, or its tensors are not this model's.
    """
    name = checkpoint or run.recipe.checkpoint
    path = run.checkpoint(name)
    if not path.exists():
        raise LesaError(f"{run.folder} has no checkpoint {name!r} yet: train it first (`lesa train` continues it)")
    tensors, _ = load_tensors(path)
    vectors_SE = torch.from_numpy(run.vectors_CE[run.vocabulary.seen_columns])
    model = build_model(run.recipe.model, vectors_SE, seed=0, known=run.known)
    restore_weights(model, tensors, path)
    return model.to(device).eval()


def restore_weights(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load the weights of a checkpoint's tensors into the model."""
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise LesaError(f"{path} does not hold this model: {error}") from None


def save_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and, in the header, a state as JSON; in one file, so that both are from the same moment."""
    with replacing(path) as temporary:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        temporary.write_bytes(save(contiguous, metadata={"state": json.dumps(state)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the state that `save_tensors` wrote.

    Raises:
        LesaError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise LesaError(f"{path} cannot be read ({error}): it is missing or damaged") from None


def read_log(run: Run) -> list[dict[str, Any]]:
    """Return the lines of a run's training log."""
    return [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]


def training_seconds(log: list[dict[str, Any]]) -> float:
    """Return how long the logged steps took, validation included."""
    steps = np.diff([0] + [line["step"] for line in log])
    return float(sum(steps / [line["steps_per_second"] for line in log]))
