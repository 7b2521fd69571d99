"""What is left of a reproduction: what is missing, and how much disk and time each stage will take on this machine."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lesa.annotations import SPLITS
from lesa.learn.datasets.dataset import Dataset
from lesa.learn.device import refuse_absent_gpu
from lesa.learn.experiments.paper import Plan, all_photos, missing, prepared, refuse_another_plan, weights_there
from lesa.learn.losses import lesa_loss
from lesa.learn.methods import build_model
from lesa.learn.optim import RMSpropTF
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.graphs import random_pixels
from lesa.learn.regions.store import read_store_manifest
from lesa.learn.regions.vgg19 import PAPER, VGG19
from lesa.learn.run import load_tensors

# Bytes of a half-precision number in the store.
HALF = 2
# Photos of the measured pass through the backbone, and steps of the measured training.
MEASURED_PHOTOS, MEASURED_STEPS = 4, 2


@dataclass(frozen=True)
class Stage:
    """A stage and what is left of it."""

    name: str
    left: str
    """What is left to do, in words; `done` if nothing."""
    disk: float = 0.0
    """Bytes that it will still write."""
    seconds: float = 0.0
    """Time that it will still take on this machine, from a short measurement."""


@dataclass(frozen=True)
class Outlook:
    """What a reproduction lacks, and what it will take."""

    missing: list[str]
    """A line for each thing that is needed and not there."""
    stages: list[Stage]
    free: float
    """Bytes that are free on the disk of the output folder."""

    @property
    def disk(self) -> float:
        """Bytes that all stages will still write."""
        return sum(stage.disk for stage in self.stages)


def look_ahead(plan: Plan) -> Outlook:
    """Say what is missing, and how much disk and time each stage will take from here on.

    Times come from a few photos and steps on this machine, with random weights where there are none yet.

    Raises:
        LesaError: the output folder was begun with other settings, the recipe makes no sense, or there is no GPU.
    """
    refuse_another_plan(plan)
    refuse_absent_gpu(plan.device)
    dataset = prepared(plan)
    backbone = _measured_backbone(plan)
    stages = [_prepare_stage(dataset), _extract_stage(plan, dataset, backbone), *_train_stages(plan, dataset, backbone)]
    return Outlook(missing(plan), stages, free_disk(plan.out))


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be."""
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def _measured_backbone(plan: Plan) -> Backbone:
    """Return the plan's backbone; VGG-19 with random weights where its own are not there yet."""
    if plan.backbone != "vgg19" or weights_there(plan.weights):
        return load_backbone(plan.backbone, weights=plan.weights)
    return Backbone("vgg19", VGG19().eval(), (14, 14), 512, PAPER, {})


def _prepare_stage(dataset: Dataset | None) -> Stage:
    """Say what preparing will take; it is small beside the others."""
    return Stage("prepare", "done" if dataset else "read the official files")


def _extract_stage(plan: Plan, dataset: Dataset | None, backbone: Backbone) -> Stage:
    """Say what extracting will take."""
    photos = len(all_photos(dataset)) if dataset else sum(plan.what.photos)
    left = max(photos - regions_done(plan.out / "regions"), 0)
    if not left:
        return Stage("extract", "done")
    guess = "" if dataset else " (the official number)"
    seconds = left / _photos_per_second(backbone, plan.device)
    return Stage("extract", f"{left:,} of {photos:,} photos{guess}", left * bytes_a_photo(backbone), seconds)


def bytes_a_photo(backbone: Backbone) -> int:
    """Return what a photo's regions take in the store."""
    rows, columns = backbone.grid
    return rows * columns * backbone.size * HALF


def regions_done(store: Path) -> int:
    """Return the number of photos that a store, finished or not, has regions of or knows to be broken."""
    if not (store / "manifest.json").exists():
        return 0
    manifest = read_store_manifest(store)
    return int(manifest["rows"] + manifest["failed"])


def _photos_per_second(backbone: Backbone, device: str) -> float:
    """Measure the backbone on random pixels, after one photo that warms it up."""
    pixels = torch.from_numpy(random_pixels(backbone.preprocessing, MEASURED_PHOTOS)).to(device)
    module = backbone.module.to(device)
    with torch.inference_mode():
        module(pixels[:1])
        start = time.perf_counter()
        module(pixels).cpu()
    return MEASURED_PHOTOS / (time.perf_counter() - start)


def _train_stages(plan: Plan, dataset: Dataset | None, backbone: Backbone) -> list[Stage]:
    """Say what training and evaluating will take."""
    recipe = plan.recipe
    train_photos, test_photos = _split_size(plan, dataset, "train"), _split_size(plan, dataset, "test")
    per_epoch = -(-train_photos // recipe.batch_size)
    steps = recipe.steps or (recipe.epochs or 0) * per_epoch
    left = max(steps - _steps_done(plan.out / "run" / "last.safetensors"), 0)
    forward, step = _step_seconds(plan, backbone)
    training = Stage("train", f"{left:,} of {steps:,} steps" if left else "done", seconds=left * step)
    return [training, Stage("evaluate", f"{test_photos:,} photos", seconds=test_photos / recipe.batch_size * forward)]


def _split_size(plan: Plan, dataset: Dataset | None, split: str) -> int:
    """Return the number of a split's photos, the official one while nothing is prepared."""
    return len(dataset.splits[split].photos) if dataset else plan.what.photos[SPLITS.index(split)]


def _steps_done(checkpoint: Path) -> int:
    """Return the steps of the last checkpoint."""
    return int(load_tensors(checkpoint)[1]["step"]) if checkpoint.exists() else 0


def _step_seconds(plan: Plan, backbone: Backbone) -> tuple[float, float]:
    """Measure a forward pass and a step of the paper's loss and optimiser on random regions, after one to warm up."""
    recipe, (rows, columns) = plan.recipe, backbone.grid
    config = replace(recipe.model, region_size=backbone.size, vector_size=300, grid=backbone.grid)
    torch.manual_seed(0)
    model = build_model(config, torch.randn(plan.what.labels[0], 300), seed=0).to(plan.device).train()
    optimiser = RMSpropTF(model.parameters())
    regions_BRD = torch.rand(recipe.batch_size, rows * columns, backbone.size, device=plan.device)
    vectors_SE = torch.randn(plan.what.labels[0], 300, device=plan.device)
    targets_BS = torch.where(torch.rand(recipe.batch_size, len(vectors_SE)) < 10 / len(vectors_SE), 1, -1)
    targets_BS = targets_BS.to(plan.device)
    times = []
    for _ in range(1 + MEASURED_STEPS):
        start = time.perf_counter()
        out = model(regions_BRD, vectors_SE)
        out.scores_BC.sum().item()
        forward = time.perf_counter() - start
        optimiser.zero_grad()
        terms = lesa_loss(out, targets_BS)
        terms.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        times.append((forward, time.perf_counter() - start))
    forwards, steps = zip(*times[1:], strict=True)
    return min(forwards), min(steps)
