"""Compare settings of the recommended recipe without unseen labels and test photos (docs/lab-notes.md).

    python benchmarks/choose_recipe.py configs/best.toml --set model.settings.gamma=1.0 --set model.settings.prior=0.5

In each of five splits a random fifth of the seen labels is held out as if it were unseen. The recipe of the file, and
the recipe with each `--set` alone, are fitted on the training photos with the other seen labels, and score the
validation photos. Prints the mean over splits of each metric (rules `lesa`), and for each `--set` the mean and the
standard deviation of its difference to the recipe.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, read_dataset, write_dataset
from lesa.learn.evaluate import evaluate_run
from lesa.learn.recipe import Recipe, read_recipe
from lesa.learn.train import train

SPLITS, HELD_OUT, K = 5, 0.2, (3, 5)
METRICS = [f"{task} {metric}" for task in ("ZSL", "GZSL") for metric in ("F1@3", "F1@5", "mAP")]


def held_out(dataset: Dataset, seed: int) -> Dataset:
    """Return the data set without its unseen labels and test photos; a random fifth of the seen labels is unseen."""
    names, seen = dataset.vocabulary.names, dataset.vocabulary.seen
    order = np.random.default_rng([seed, len(seen)]).permutation(len(seen))
    cut = round(HELD_OUT * len(seen))
    parts = [tuple(seen[i] for i in sorted(part)) for part in (order[:cut], order[cut:])]
    columns = [names.index(name) for part in parts for name in part]
    splits = {
        name: replace(split, targets=replace(split.targets, entries=split.targets.entries[:, columns]))
        for name, split in dataset.splits.items()
        if name != "test"
    }
    source = {**dataset.source, "held_out_seed": seed}
    return Dataset(f"{dataset.name}-held-out-{seed}", Vocabulary(*parts), splits, source)


def metrics(recipe: Recipe, dataset: Path, out: Path) -> NDArray[np.float64]:
    """Return the six metrics of a recipe on the validation photos of a data set."""
    run = train(replace(recipe, dataset=str(dataset)), out)
    reports = evaluate_run(run, split="validation", k=K).reports["lesa"]
    found = (reports["ZSL"], reports["GZSL"])
    return np.array([v for report in found for v in (*(report.f1[k] for k in K), report.mean_average_precision)])


def main() -> None:
    """Run the comparison that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting to try; repeatable")
    parser.add_argument("--base", action="append", default=[], metavar="KEY=VALUE", help="changes of the recipe itself")
    given = parser.parse_args()
    base = read_recipe(given.recipe, given.base)
    tried = {"recipe": base, **{change: read_recipe(given.recipe, [*given.base, change]) for change in given.set}}
    dataset = read_dataset(base.dataset)
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in tried}
    with TemporaryDirectory() as folder:
        for seed in range(SPLITS):
            held = Path(folder) / f"held-out-{seed}"
            write_dataset(held_out(dataset, seed), held)
            for number, (name, recipe) in enumerate(tried.items()):
                rows[name].append(metrics(recipe, held, Path(folder) / f"run-{seed}-{number}"))
    print(f"| setting | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in np.mean(found, axis=0))} |")
        if name != "recipe":
            gain = np.subtract(found, rows["recipe"])
            cells = [f"{m:+.1f} ± {d:.1f}" for m, d in zip(gain.mean(axis=0), gain.std(axis=0, ddof=1), strict=True)]
            print(f"| difference | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
