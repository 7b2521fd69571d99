"""The demonstration: embedded region codes of real photos -> trained runs, their evaluation and a report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lesa.learn.datasets.demo import unpack_demo
from lesa.learn.evaluate import Evaluation, evaluate_run, write_evaluation
from lesa.learn.experiments.report import write_report
from lesa.learn.experiments.tagged import tag_photos
from lesa.learn.recipe import Recipe, make_recipe
from lesa.learn.train_bar import train_with_bar

MAIN = "LESA, contrastive"
CONTROL = "mean pool, contrastive"
# Title in the report -> folder and recipe of the run. The published recipe learns slowly on so few photos.
CONTRASTIVE: dict[str, Any] = {"recipe": "contrastive", "epochs": 16}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "LESA, published": ("published", {"recipe": "published", "epochs": 100}),
    MAIN: ("contrastive", CONTRASTIVE),
    "one attention, contrastive": ("one-attention", {**CONTRASTIVE, "model": {"attentions": 1}}),
    CONTROL: ("mean-pool", {**CONTRASTIVE, "model": {"kind": "mean-pool"}}),
    "recommended": ("best", {"recipe": "best", "epochs": 16}),
    "ESZSL": ("eszsl", {"recipe": "eszsl"}),
    "CONSE": ("conse", {"recipe": "conse", "epochs": 16}),
    "Fast0Tag": ("fast0tag", {"recipe": "fast0tag", "epochs": 16}),
    "SDL": ("sdl", {"recipe": "sdl", "epochs": 16}),
}


def run_demo(out: Path | str, announce: Callable[[str], None], photos: Path | None = None) -> Path:
    """Train and evaluate the runs on the embedded data, and return the path of their HTML report.

    Finished parts are kept: the same call continues where an earlier call stopped.

    Args:
        out: the folder of the data, the runs and the report.
        announce: called with each line for the reader.
        photos: labelled photos that the bundle in the package tags for the report (see `tag_photos`).

    Raises:
        LesaError: the labelled photos cannot be read, or the folder holds other data.
    """
    out = Path(out).resolve()
    tagged = tag_photos(photos) if photos else []
    unpack_demo(out / "data")
    evaluations: dict[str, Evaluation] = {}
    for title, (folder, settings) in RUNS.items():
        run = train_with_bar(demo_recipe(out / "data", settings), out / "runs" / folder, title=title)
        evaluations[title] = evaluate_run(run)
        write_evaluation(evaluations[title], run.folder / "evaluation.json")
    report = out / "report.html"
    write_report(evaluations, report, main=MAIN, control=CONTROL, tagged=tagged)
    for line in _summary(evaluations):
        announce(line)
    if not photos:
        announce("the report shows no tagged photos: --photos names labelled ones")
    return report


def demo_recipe(data: Path, settings: dict[str, Any]) -> Recipe:
    """Return the recipe of a run on the unpacked data.

    Args:
        data: the folder of the unpacked data.
        settings: the settings of the run.

    Raises:
        LesaError: the settings make no sense.
    """
    places = {
        "dataset": str(data / "dataset"),
        "regions": str(data / "regions"),
        "vectors": [str(data / "vectors.safetensors")],
    }
    return make_recipe({**places, **settings}, where="the demonstration")


def _summary(evaluations: dict[str, Evaluation]) -> list[str]:
    """Return the lines of a short table: the metrics for the unseen labels alone and for all labels, in percent."""
    tasks = ("ZSL", "GZSL")
    lines = [" " * 26 + "".join(f"{task:>8} F1@3{'F1@5':>7}{'mAP':>7}" for task in tasks)]
    for title, evaluated in evaluations.items():
        reports = [evaluated.reports["lesa"][task] for task in tasks]
        metrics = [f"{r.f1[3]:13.1f}{r.f1[5]:7.1f}{r.mean_average_precision:7.1f}" for r in reports]
        lines.append(f"{title:26}" + "".join(metrics))
    return lines
