"""Compare the default bundle's backbone with the full MobileNetV2: metrics of the same head, and speed.

    python benchmarks/default_bundle.py heads DATASET FULL STUDENT -o build/default/heads   # the same command resumes
    python benchmarks/default_bundle.py speed FULL STUDENT

FULL and STUDENT are region stores of the benchmark's photos (docs/datasets.md), one for each backbone. The head is the
contrastive recipe, with the settings that held-out seen labels chose (docs/results.md) and vectors of the sentence
encoder. Prints each backbone's metrics and the student's share of the full backbone's metric, with mean and standard
deviation over seeds.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from lesa.learn.evaluate import evaluate_run
from lesa.learn.recipe import make_recipe
from lesa.learn.regions.graphs import random_pixels, run_on
from lesa.learn.regions.projection import backbone_of
from lesa.learn.train import train

HEAD = {
    "recipe": "contrastive",
    "vectors": ["text:all-MiniLM-L6-v2"],
    "model": {"front": True},
    "optimiser": {"learning_rate": 1e-3},
}
SEEDS = (0, 1, 2)
TASKS = ("ZSL", "GZSL")
ROUNDS, BATCH = 20, 8


def heads(dataset: Path, stores: dict[str, Path], out: Path) -> None:
    """Train and evaluate the head on each store with each seed."""
    metrics: dict[str, dict[str, list[float]]] = {name: {} for name in stores}
    for name, store in stores.items():
        for seed in SEEDS:
            recipe = make_recipe(
                {**HEAD, "dataset": str(dataset), "regions": str(store), "seed": seed}, where="this benchmark"
            )
            reports = evaluate_run(train(recipe, out / f"{name}-{seed}")).reports["lesa"]
            for task in TASKS:
                report = reports[task]
                for metric, value in (("F1@3", report.f1[3]), ("mAP", report.mean_average_precision)):
                    metrics[name].setdefault(f"{task} {metric}", []).append(value)
            print(name, seed, {key: round(values[-1], 2) for key, values in metrics[name].items()}, flush=True)
    for key, full in metrics["full"].items():
        reduced = metrics["student"][key]
        shares = [100 * ours / theirs for ours, theirs in zip(reduced, full, strict=True)]
        print(f"{key}: full {spread(full)}, student {spread(reduced)}, kept {spread(shares)} %")


def spread(values: list[float]) -> str:
    """Return mean and standard deviation as text."""
    return f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}"


def speed(stores: dict[str, Path]) -> None:
    """Time both graphs in turn in one process, one batch each; print the median ratio and its quartiles."""
    runs = {}
    for name, store in stores.items():
        backbone = backbone_of(store)
        runs[name] = run_on(backbone), random_pixels(backbone.preprocessing, BATCH)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, (run, pixels) in runs.items():
            started = time.perf_counter()
            run(pixels)
            times[name].append(time.perf_counter() - started)
    ratios = np.array(times["full"][1:]) / np.array(times["student"][1:])
    for name, taken in times.items():
        print(f"{name}: {BATCH / statistics.median(taken[1:]):.0f} photos per second")
    print(f"ratio: median {np.median(ratios):.2f}, quartiles {np.quantile(ratios, (0.25, 0.75)).round(2).tolist()}")


def main() -> None:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("heads", "speed"):
        part = parts.add_parser(name)
        if name == "heads":
            part.add_argument("dataset", type=Path)
            part.add_argument("-o", "--out", type=Path, required=True)
        part.add_argument("full", type=Path)
        part.add_argument("student", type=Path)
    given = parser.parse_args()
    stores = {"full": given.full, "student": given.student}
    if given.part == "heads":
        heads(given.dataset, stores, given.out)
    else:
        speed(stores)


if __name__ == "__main__":
    main()
