"""Train the default bundle's backbone: a student of MobileNetV2 at a third of its cost (`lesa.learn.regions.student`).

    python tools/default_backbone.py targets STORE PHOTOS build/default   # the teacher's maps of random crops
    python tools/default_backbone.py distil STORE PHOTOS build/default    # the student; resumed from its checkpoint

The student starts with weights of the teacher, MobileNetV2: in each block the hidden channels that matter most for the
block's output. Then it learns to give the same maps as the teacher. STORE is a projected region store of the photos
(`lesa extract`, `lesa project`); its manifest names the teacher, and it has the principal components. PHOTOS is the
folder of the photos. Photos of the benchmark's test split (see docs/datasets.md) are not used; the hash of a photo's
name decides its split. Both steps can be stopped at any time; the same command resumes them. All randomness depends
only on SEED.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lesa.errors import LesaError
from lesa.files import replacing, write_json
from lesa.learn.datasets.dataset import split_of
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.graphs import run_on
from lesa.learn.regions.projection import Projection, backbone_of, read_projection
from lesa.learn.regions.student import BLOCKS, GRID, SIDE, SIZE, Student

SEED = 20261123
WHOLE = 224
"""Side in pixels to which photos are squashed before views are cut out of them."""
MOSAIC = 4
"""Every fourth round shows four photos at half size, so that objects are small and beside others."""
BATCH, RATE, DECAY = 64, 1e-3, 0.01


def names_of(folder: Path, split: str) -> list[str]:
    """Return the sorted names of the photos of one split of the benchmark."""
    return sorted(path.name for path in folder.glob("*.jpg") if split_of(path.name) == split)


def read_photos(folder: Path, names: list[str]) -> list[Image.Image]:
    """Return photos squashed to the teacher's square."""
    photos = []
    for name in names:
        with Image.open(folder / name) as image:
            photos.append(image.convert("RGB").resize((WHOLE, WHOLE), Image.Resampling.BILINEAR))
    return photos


def view(photos: list[Image.Image], rows: Tensor, round_: int) -> Tensor:
    """Return the views of a round for the photos of these rows: pixels in [-1, 1], (B, 3, 192, 192).

    Round 0 shows whole photos. Later rounds show random crops (mirrored or not, brighter or darker), or mosaics of four
    photos. A view depends only on the seed, the round and the row, so that the teacher's maps can be stored.
    """
    show = [whole, mosaic, crop, crop, crop][1 + round_ % MOSAIC if round_ else 0]
    images = [show(photos, int(row), random(round_, int(row)), SIDE) for row in rows]
    if round_:
        images = [lit(image, random(round_, int(row), 1)) for image, row in zip(images, rows, strict=True)]
    values = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return values.float().div_(127.5).sub_(1).permute(0, 3, 1, 2)


def lit(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Return an image with random brightness and balance of colours."""
    gains_3 = chance.uniform(0.7, 1.3) * chance.uniform(0.92, 1.08, (3, 1))
    curves = (np.arange(256) - 127.5) * gains_3 + 127.5 + chance.uniform(-20, 20)
    return image.point(curves.clip(0, 255).astype(np.uint8).ravel().tolist())


def whole(photos: list[Image.Image], row: int, chance: np.random.Generator, side: int) -> Image.Image:
    """Return the whole photo."""
    return photos[row].resize((side, side), Image.Resampling.BILINEAR)


def crop(photos: list[Image.Image], row: int, chance: np.random.Generator, side: int) -> Image.Image:
    """Return a random part of a photo (12 to 100 % of its area) as a square, mirrored or not."""
    area, aspect = chance.uniform(0.12, 1), math.exp(chance.uniform(-0.3, 0.3))
    wide, high = (WHOLE * min(1.0, math.sqrt(area * stretch)) for stretch in (aspect, 1 / aspect))
    left, top = chance.uniform(0, 1, 2) * (WHOLE - wide, WHOLE - high)
    part = photos[row].resize((side, side), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
    return ImageOps.mirror(part) if chance.random() < 0.5 else part


def mosaic(photos: list[Image.Image], row: int, chance: np.random.Generator, side: int) -> Image.Image:
    """Return a square of four photos at half size: the photo of this row and three random ones."""
    square, half = Image.new("RGB", (side, side)), side // 2
    for i, each in enumerate([row, *chance.integers(len(photos), size=3).tolist()]):
        square.paste(crop(photos, each, chance, half), (half * (i % 2), half * (i // 2)))
    return square


def random(*key: int) -> np.random.Generator:
    """Return a generator of random numbers that depends only on the seed and the key, such as a round and a row."""
    return np.random.default_rng([SEED, *key])


def make_targets(store: Path, photos: Path, out: Path, rounds: int) -> None:
    """Write the teacher's maps of every round: float16 (N, 36, 256), one file per round."""
    backbone, projection = read_teacher(store)
    teacher = run_on(replace(backbone, preprocessing=replace(backbone.preprocessing, size=SIDE), grid=GRID))
    for name in ("validation", "train"):
        images = read_photos(photos, names_of(photos, name))
        for round_ in range(rounds if name == "train" else 1):
            path = out / f"{name}-{round_:03d}.npy"
            if path.exists():
                continue
            started, maps = time.time(), np.empty((len(images), math.prod(GRID), SIZE), np.float16)
            for rows in torch.arange(len(images)).split(32):
                regions_BRD = teacher(view(images, rows, round_).contiguous().numpy())
                maps[rows] = projection.apply(regions_BRD)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, maps)
            print(f"{path.name}: {len(images)} photos in {time.time() - started:.0f} s", flush=True)


def pruned(teacher: torch.nn.Module, projection: Projection, pixels: Tensor) -> Student:
    """Return a student with the teacher's most important channels, measured on these pixels."""
    stem, student = teacher.conv_stem, Student()
    components = torch.from_numpy(projection.components.T.copy())
    project = components[:, :, None, None], -components @ torch.from_numpy(projection.mean_D)
    chains = [([stem.first_conv, stem.conv_3x3], folded(stem.reduce_1x1), student.stem)]
    for block, (place, *_) in zip(student.blocks, BLOCKS, strict=True):
        layer = teacher.layer[place]
        chains.append(([layer.expand_1x1, layer.conv_3x3], folded(layer.reduce_1x1), block))
    chains.append(([teacher.conv_1x1], project, student.last))
    statistics = activations([makers[-1] for makers, _, _ in chains], lambda: teacher(pixel_values=pixels))
    for (makers, reader, part), hidden in zip(chains, statistics, strict=True):
        narrow([folded(maker) for maker in makers], reader, hidden, convolutions(part))
    return student


def activations(layers: list[torch.nn.Module], call: Callable[[], object]) -> list[Tensor]:
    """Return mean and standard deviation of each output channel (2, channels) of the layers during a call."""
    statistics: dict[torch.nn.Module, Tensor] = {}

    def remember(layer: torch.nn.Module, given: object, maps: Tensor) -> None:
        statistics[layer] = torch.stack([maps.mean((0, 2, 3)), maps.std((0, 2, 3))])

    hooks = [layer.register_forward_hook(remember) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return [statistics[layer] for layer in layers]


def narrow(
    makers: list[tuple[Tensor, Tensor]], reader: tuple[Tensor, Tensor], hidden: Tensor, into: list[torch.nn.Conv2d]
) -> None:
    """Copy the convolutions that make hidden channels, and the one that reads them, with the best channels only.

    The importance of a channel is its standard deviation times the norm of the weights that read it. The mean of each
    omitted channel is added to the reader's bias.

    Args:
        makers: weight and bias of the convolutions that make the hidden channels.
        reader: weight and bias of the convolution that reads them.
        hidden: mean and standard deviation of each hidden channel (2, channels).
        into: the student's convolutions, which are overwritten.
    """
    (mean, deviation), (weight, bias) = hidden, reader
    best = (deviation * weight.flatten(1).norm(dim=0)).topk(into[-1].in_channels).indices.sort().values
    rest = torch.ones(len(mean), dtype=torch.bool)
    rest[best] = False
    for (maker_weight, maker_bias), target in zip(makers, into[:-1], strict=True):
        target.weight.copy_(maker_weight[best])
        target.bias.copy_(maker_bias[best])
    into[-1].weight.copy_(weight[:, best])
    into[-1].bias.copy_(bias + weight[:, rest].flatten(1) @ mean[rest])


def folded(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias with its batch normalisation folded in."""
    scale = layer.normalization.weight / (layer.normalization.running_var + layer.normalization.eps).sqrt()
    shift = layer.normalization.bias - layer.normalization.running_mean * scale
    return layer.convolution.weight * scale[:, None, None, None], shift


def convolutions(module: torch.nn.Module) -> list[torch.nn.Conv2d]:
    """Return a module's convolutions in order."""
    return [each for each in module.modules() if isinstance(each, torch.nn.Conv2d)]


def read_teacher(store: Path) -> tuple[Backbone, Projection]:
    """Return the backbone of a store and its projection, reduced to the first components."""
    projection = read_projection(store)
    if projection is None:
        raise LesaError(f"{store} is not projected: make its principal components with `lesa project`")
    return backbone_of(store), replace(projection, components=np.ascontiguousarray(projection.components[:, :SIZE]))


def batches(photos: int, round_: int, pass_: int) -> Iterator[Tensor]:
    """Yield the rows of a round in a random order of this round and pass; the last, smaller batch is left out."""
    order = torch.from_numpy(random(round_, pass_, 99).permutation(photos))
    yield from order[: photos // BATCH * BATCH].split(BATCH)


def distil(store: Path, photos: Path, out: Path, rounds: int, passes: int) -> None:
    """Train the student for a number of passes over all rounds; write its weights in half precision, and a log."""
    train, validation = (read_photos(photos, names_of(photos, split)) for split in ("train", "validation"))
    expected = torch.from_numpy(np.load(out / "validation-000.npy")).float()
    torch.manual_seed(SEED)
    with torch.no_grad():
        backbone, projection = read_teacher(store)
        student = pruned(backbone.module.model, projection, view(train, torch.arange(64), 0))
    student = student.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=DECAY)
    steps = rounds * passes * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    parts = {"student": student, "optimizer": optimizer, "schedule": schedule, "average": average}
    settings = {"rounds": rounds, "passes": passes, "photos": len(train), "seed": SEED}
    log = [{"done": 0, "unexplained": unexplained(student, validation, expected)}]
    print(log[0], flush=True)
    if (out / "distil.pt").exists():
        state = torch.load(out / "distil.pt", weights_only=True)
        if state["settings"] != settings:
            raise LesaError(
                f"{out / 'distil.pt'} was made with {state['settings']}, not {settings}: give another folder"
            )
        for key, each in parts.items():
            each.load_state_dict(state[key])
        log = state["log"]
    for done in range(len(log) - 1, rounds * passes):
        pass_, round_ = divmod(done, rounds)
        started, total = time.time(), 0.0
        student.train()
        targets = np.load(out / f"train-{round_:03d}.npy", mmap_mode="r")
        for rows in batches(len(train), round_, pass_):
            total += step(student, optimizer, view(train, rows, round_), torch.from_numpy(targets[rows]).float())
            schedule.step()
            average.update_parameters(student)
        share = unexplained(average.module, validation, expected)
        log.append({"done": done + 1, "loss": total / (len(train) // BATCH), "unexplained": share})
        with replacing(out / "distil.pt") as temporary:
            states = {key: each.state_dict() for key, each in parts.items()}
            torch.save({**states, "settings": settings, "log": log}, temporary)
        write_json(out / "distil.json", log)
        print(f"{done + 1}/{rounds * passes} {log[-1]} {time.time() - started:.0f} s", flush=True)
    with replacing(out / "student.safetensors") as temporary:
        save_file({name: value.half().contiguous() for name, value in average.module.state_dict().items()}, temporary)


def rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: a short linear rise, then half a cosine."""
    return min(step / 300, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def step(student: Student, optimizer: torch.optim.Optimizer, pixels: Tensor, targets: Tensor) -> float:
    """Take one step on the squared distance to the teacher's regions, divided by their squares; return this loss."""
    with torch.autocast("cpu", torch.bfloat16):
        regions = student(pixels.contiguous(memory_format=torch.channels_last))
    loss = (regions.float() - targets).square().sum(dim=2).mean() / targets.square().sum(dim=2).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def unexplained(student: torch.nn.Module, photos: list[Image.Image], expected: Tensor) -> float:
    """Return the share of the teacher's variance on whole photos that the student does not explain."""
    student.eval()
    with torch.inference_mode():
        pixels = (view(photos, rows, 0) for rows in torch.arange(len(photos)).split(64))
        regions = torch.cat([student(each.contiguous(memory_format=torch.channels_last)) for each in pixels])
    return float((regions - expected).square().sum() / expected.square().sum())


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["targets", "distil"])
    for name in ("store", "photos", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--rounds", type=int, default=12, help="number of views per photo")
    parser.add_argument("--passes", type=int, default=3, help="number of passes over all views")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step == "targets":
        make_targets(given.store, given.photos, given.out, given.rounds)
    else:
        distil(given.store, given.photos, given.out, given.rounds, given.passes)


if __name__ == "__main__":
    main()
