"""The effect of `lesa calibrate` on new photos: by number of labelled photos, and by part of the map.

    python benchmarks/calibration.py BUNDLE prepared/flickr8k IMAGES [--test 1000] [--draws 5]

The maps are fitted on photos drawn from the validation split and evaluated on test photos, separately for seen and
unseen labels. For the last table half of the unseen labels take no part in the fit, like words that nobody calibrated,
and only these are evaluated. Metrics are means over the draws. Scoring 1,394 photos takes half a minute, the fits take
two minutes.

Prints Markdown tables.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesa.calibration import Calibration, sigmoid
from lesa.fit_calibration import STRENGTHS, Labelled, best_threshold, f1_at, fit_calibration, reliability, score_photos
from lesa.learn.datasets.dataset import read_dataset
from lesa.tagger import Tagger

PHOTOS = (30, 60, 120)
HEADER = ("ECE", "ECE of the best 5", "Brier", "log loss")


def read(bundle: Path, dataset: Path, images: Path, split: str, most: int | None) -> Labelled:
    """Score the first `most` photos of a split, or all."""
    data = read_dataset(dataset)
    chosen = data.split(split)
    photos, targets_NC = chosen.photos[:most], chosen.targets.dense()[:most]
    files = [images / photo for photo in photos]
    return score_photos(Tagger(bundle), files, targets_NC, data.vocabulary.names, lambda reason: print(reason))


def draws(labelled: Labelled, photos: int, count: int) -> Iterator[Labelled]:
    """Yield `count` random choices of `photos` photos; if these are all photos, the choices are equal."""
    total = len(labelled.scores_NC)
    for seed in range(count):
        yield labelled.photos(np.isin(np.arange(total), np.random.default_rng(seed).permutation(total)[:photos]))


def labels(labelled: Labelled, chosen_C: np.ndarray) -> Labelled:
    """Return the chosen labels only."""
    names = tuple(np.array(labelled.names)[chosen_C].tolist())
    return replace(
        labelled,
        names=names,
        seen_C=labelled.seen_C[chosen_C],
        scores_NC=labelled.scores_NC[:, chosen_C],
        targets_NC=labelled.targets_NC[:, chosen_C],
        before_NC=labelled.before_NC[:, chosen_C],
    )


def logits(fitted: Calibration, test: Labelled) -> np.ndarray:
    """Return the logits of test photos."""
    biases_C = fitted.biases(test.names, test.seen_C.tolist())
    return fitted.slope * test.scores_NC + fitted.photo_factor * test.offsets_N[:, None] + biases_C


def metrics(logits_NC: np.ndarray, test: Labelled) -> list[float]:
    """Return the reliability of seen labels, of unseen ones, and F1@3 over both."""
    parts = [reliability(logits_NC[:, of_C], test.targets_NC[:, of_C]) for of_C in (test.seen_C, ~test.seen_C)]
    return [value for part in parts for value in vars(part).values()] + [f1_at(logits_NC, test.targets_NC)]


def f1(probabilities_NC: np.ndarray, threshold: float, present_NC: np.ndarray) -> float:
    """Return micro F1, in percent, of the tags with at least this probability."""
    tags_NC = probabilities_NC >= threshold
    return float(200 * (tags_NC & present_NC).sum() / (tags_NC.sum() + present_NC.sum()))


def cells(values: list[float]) -> str:
    """Return the cells of a row of metrics."""
    forms = ["{:.2%}", "{:.1%}", "{:.4f}", "{:.4f}"] * (len(values) // 4) + ["{:.1f}"] * (len(values) % 4)
    return " | ".join(form.format(value) for form, value in zip(forms, values, strict=True))


def head(first: str, kinds: tuple[str, ...], more: tuple[str, ...] = ()) -> str:
    """Return the first two lines of a table."""
    names = [first, *(f"{kind}: {name}" for kind in kinds for name in HEADER), *more]
    return "\n| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def by_photos(fit: Labelled, test: Labelled, count: int) -> None:
    """Print reliability on test photos by number of labelled photos, with and without the labels' own biases."""
    print(head("photos fitted on", ("seen", "unseen"), ("F1@3",)))
    print(f"| none: sigmoid of the score | {cells(metrics(test.scores_NC, test))} |")
    for photos in (*PHOTOS, len(fit.scores_NC)):
        for text, strengths in ("shared map", ()), ("with labels' biases", STRENGTHS):
            rows = [metrics(logits(fit_calibration(each, strengths), test), test) for each in draws(fit, photos, count)]
            print(f"| {photos}, {text} | {cells(np.mean(rows, axis=0).tolist())} |")


def by_part(fit: Labelled, test: Labelled, count: int) -> None:
    """Print the reliability with single parts of the shared map, fitted on 120 photos."""
    print(head("map, 120 photos", ("seen", "unseen"), ("F1@3",)))
    none_seen_C = np.zeros(len(fit.seen_C), bool)
    for text, with_offset, with_seen_bias in (
        ("slope and bias", False, False),
        ("+ seen bias", False, True),
        ("+ photo offset", True, False),
        ("+ seen bias + photo offset", True, True),
    ):
        rows = []
        for each in draws(fit, 120, count):
            each = each if with_offset else replace(each, offsets_N=np.zeros_like(each.offsets_N))
            fitted = fit_calibration(each if with_seen_bias else replace(each, seen_C=none_seen_C), ())
            rows.append(metrics(logits(fitted, test), test))
        print(f"| {text} | {cells(np.mean(rows, axis=0).tolist())} |")


def thresholds(fit: Labelled, test: Labelled, count: int) -> None:
    """Print F1 over all pairs at the calibration's threshold, at 0.5, and at the best threshold of the test photos."""
    print("\n| photos fitted on | threshold | tags per photo | F1 at it | F1 at 0.5 | F1 at the test photos' best |")
    print("|---" * 6 + "|")
    present_NC = test.targets_NC > 0
    for photos in (*PHOTOS, len(fit.scores_NC)):
        rows = []
        for each in draws(fit, photos, count):
            fitted = fit_calibration(each)
            p_NC = sigmoid(logits(fitted, test))
            limits = (fitted.threshold, 0.5, best_threshold(p_NC.ravel(), present_NC.ravel()))
            tags = float((p_NC >= fitted.threshold).sum(axis=1).mean())
            rows.append([fitted.threshold, tags, *(f1(p_NC, limit, present_NC) for limit in limits)])
        threshold, tags, *scores = np.mean(rows, axis=0).tolist()
        print(f"| {photos} | {threshold:.3f} | {tags:.1f} | " + " | ".join(f"{value:.1f}" for value in scores) + " |")


def other_words(fit: Labelled, test: Labelled, count: int) -> None:
    """Print the reliability of unseen labels that took no part in the fit."""
    print(head("photos fitted on", ("other words",)))
    for photos in (*PHOTOS, len(fit.scores_NC)):
        rows = []
        for seed, each in enumerate(draws(fit, photos, count)):
            left_out_C = ~fit.seen_C & (np.random.default_rng(seed).random(len(fit.seen_C)) < 0.5)
            rest = labels(test, left_out_C)
            fitted = fit_calibration(labels(each, ~left_out_C))
            rows.append(list(vars(reliability(logits(fitted, rest), rest.targets_NC)).values()))
        print(f"| {photos} | {cells(np.mean(rows, axis=0).tolist())} |")


def main() -> None:
    """Score the photos and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "dataset", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--test", type=int, default=1000, help="number of test photos")
    parser.add_argument("--draws", type=int, default=5, help="number of draws of the photos to fit on")
    given = parser.parse_args()
    fit = read(given.bundle, given.dataset, given.images, "validation", None)
    test = read(given.bundle, given.dataset, given.images, "test", given.test)
    print(f"{given.bundle}: {len(fit.scores_NC)} validation photos, {len(test.scores_NC)} test photos, ", end="")
    print(f"{test.seen_C.sum()} seen and {(~test.seen_C).sum()} unseen labels")
    for table in (by_photos, by_part, thresholds, other_words):
        table(fit, test, given.draws)


if __name__ == "__main__":
    main()
