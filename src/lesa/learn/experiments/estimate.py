"""The rest of a reproduction: the missing inputs, and the work and the disk space that each stage still needs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lesa.annotations import SPLITS
from lesa.learn.datasets.dataset import Dataset
from lesa.learn.device import refuse_absent_gpu
from lesa.learn.experiments.paper import (
    Plan,
    all_photos,
    missing_inputs,
    prepared_dataset,
    refuse_another_plan,
    weights_there,
)
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.store import read_store_manifest
from lesa.learn.regions.vgg19 import PAPER, VGG19
from lesa.learn.run import load_tensors

# Bytes of a half-precision number in the region store.
HALF = 2


@dataclass(frozen=True)
class Stage:
    """A stage, and the part of it that is not done yet."""

    name: str
    left: str
    """The work that is left, in words, or `done`."""
    disk: float = 0.0
    """Number of bytes that it still writes."""


@dataclass(frozen=True)
class Estimate:
    """The inputs that a reproduction lacks, and what its stages still need."""

    missing: list[str]
    """One line for each missing input."""
    stages: list[Stage]
    free: float
    """Number of free bytes on the disk of the output folder."""

    @property
    def disk(self) -> float:
        """Number of bytes that all stages still write."""
        return sum(stage.disk for stage in self.stages)


def estimate(plan: Plan) -> Estimate:
    """Return the missing inputs, and the work and the disk space that each stage still needs.

    Raises:
        LesaError: the output folder was begun with other settings, the recipe makes no sense, or there is no GPU.
    """
    refuse_another_plan(plan)
    refuse_absent_gpu(plan.device)
    dataset = prepared_dataset(plan)
    prepare = Stage("prepare", "done" if dataset else "read the official files")
    stages = [prepare, _extract_stage(plan, dataset), _train_stage(plan, dataset), _evaluate_stage(plan, dataset)]
    return Estimate(missing_inputs(plan), stages, free_disk(plan.out))


def free_disk(folder: Path) -> int:
    """Return the number of free bytes on the disk of a folder; the folder need not exist yet."""
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def _extract_stage(plan: Plan, dataset: Dataset | None) -> Stage:
    photos = len(all_photos(dataset)) if dataset else sum(plan.paper.photos)
    left = max(photos - regions_done(plan.out / "regions"), 0)
    if not left:
        return Stage("extract", "done")
    remark = "" if dataset else " (the official number)"
    return Stage("extract", f"{left:,} of {photos:,} photos{remark}", left * bytes_per_photo(_backbone_of(plan)))


def _backbone_of(plan: Plan) -> Backbone:
    """Return the plan's backbone. If VGG-19's weights are missing, it has random ones: its sizes are the same."""
    if plan.backbone != "vgg19" or weights_there(plan.weights):
        return load_backbone(plan.backbone, weights=plan.weights)
    return Backbone("vgg19", VGG19().eval(), (14, 14), 512, PAPER, {})


def bytes_per_photo(backbone: Backbone) -> int:
    """Return the number of bytes that the regions of one photo need in the region store."""
    rows, columns = backbone.grid
    return rows * columns * backbone.size * HALF


def regions_done(store: Path) -> int:
    """Return the number of photos in a region store, complete or not: those with regions and those that failed."""
    if not (store / "manifest.json").exists():
        return 0
    manifest = read_store_manifest(store)
    return int(manifest["rows"] + manifest["failed"])


def _train_stage(plan: Plan, dataset: Dataset | None) -> Stage:
    recipe = plan.recipe
    steps = recipe.steps or (recipe.epochs or 0) * -(-_split_size(plan, dataset, "train") // recipe.batch_size)
    left = max(steps - _steps_done(plan.out / "run" / "last.safetensors"), 0)
    return Stage("train", f"{left:,} of {steps:,} steps" if left else "done")


def _evaluate_stage(plan: Plan, dataset: Dataset | None) -> Stage:
    return Stage("evaluate", f"{_split_size(plan, dataset, 'test'):,} photos")


def _split_size(plan: Plan, dataset: Dataset | None, split: str) -> int:
    """Return the number of photos of a split; the official number if the data set is not prepared yet."""
    return len(dataset.splits[split].photos) if dataset else plan.paper.photos[SPLITS.index(split)]


def _steps_done(checkpoint: Path) -> int:
    return int(load_tensors(checkpoint)[1]["step"]) if checkpoint.exists() else 0
