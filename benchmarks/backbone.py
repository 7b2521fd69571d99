"""Compare the speed of a backbone as an ONNX graph and in eager PyTorch, in turn in one process, on random pixels.

python benchmarks/backbone.py hf:google/mobilenet_v2_1.0_224 --batch-size 8

Prints a Markdown table: median (least - most) photos per second over the rounds, without decoding.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.graphs import run_on


def photos_per_second(run: Callable[[NDArray[np.float32]], Any], pixels: NDArray[np.float32], batches: int) -> float:
    """Return the speed of `run` in photos per second."""
    start = time.perf_counter()
    for _ in range(batches):
        run(pixels)
    return batches * len(pixels) / (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--output-stride", type=int)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=5, help="batches per round")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    options: dict[str, str | int] = (
        {} if arguments.output_stride is None else {"output_stride": arguments.output_stride}
    )
    backbone = load_backbone(arguments.backbone, options)
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(0).normal(size=(arguments.batch_size, 3, size, size)).astype(np.float32)

    def eager(batch: NDArray[np.float32]) -> torch.Tensor:
        with torch.inference_mode():
            out: torch.Tensor = backbone.module(torch.from_numpy(batch))
        return out

    ways = {"ONNX graph": run_on(backbone, "cpu"), "eager PyTorch": eager}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(arguments.rounds + 1):
        for name, run in ways.items():
            speed = photos_per_second(run, pixels, arguments.batches)
            if round_number:  # the first round is a warm-up
                speeds[name].append(speed)
    print("| way | photos per second |\n|---|---|")
    for name, values in speeds.items():
        print(f"| {name} | {median(values):.0f} ({min(values):.0f} - {max(values):.0f}) |")
    ratios = [graph / plain for graph, plain in zip(*speeds.values(), strict=True)]
    print(f"\nratio {median(ratios):.1f}, {backbone.spec}, grid {backbone.grid}, batch {arguments.batch_size}")


if __name__ == "__main__":
    main()
