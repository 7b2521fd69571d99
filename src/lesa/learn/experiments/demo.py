"""The demonstration: embedded region codes of real photos -> trained runs, their evaluation and a report.

The report also shows what the bundle in the package says of a few photos: those in scikit-image's wheel, if installed.
"""

from base64 import b64encode
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from lesa.learn.datasets.demo import unpack_demo
from lesa.learn.evaluate import Evaluation, evaluate_run, write_evaluation
from lesa.learn.experiments.report import write_report
from lesa.learn.recipe import Recipe, make_recipe
from lesa.learn.run import Run
from lesa.learn.train import Progress, train
from lesa.pictures import photo_sheet, view_photo
from lesa.progress import progress_bar
from lesa.tagger import Tagger

MAIN = "LESA, contrastive"
CONTROL = "mean pool, contrastive"
# Title in the report, to the run's folder and its recipe. The published recipe learns slowly on so few photos.
CONTRASTIVE: dict[str, Any] = {"recipe": "contrastive", "epochs": 16}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "LESA, published": ("published", {"recipe": "published", "epochs": 100}),
    MAIN: ("contrastive", CONTRASTIVE),
    "one attention, contrastive": ("one-attention", {**CONTRASTIVE, "model": {"attentions": 1}}),
    CONTROL: ("mean-pool", {**CONTRASTIVE, "model": {"kind": "mean-pool"}}),
    "ESZSL": ("eszsl", {"recipe": "eszsl"}),
    "CONSE": ("conse", {"recipe": "conse", "epochs": 16}),
    "Fast0Tag": ("fast0tag", {"recipe": "fast0tag", "epochs": 16}),
    "SDL": ("sdl", {"recipe": "sdl", "epochs": 16}),
}
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Photos in scikit-image's wheel that may be shown: in the public domain, or CC0."""
TAGS = 4


def run_demo(out: Path | str, announce: Callable[[str], None]) -> Path:
    """Train and evaluate the runs on the embedded data and return the path of the HTML report on them.

    What is already there is kept: the same call goes on where an earlier one stopped.

    Args:
        out: the folder of the data, the runs and the report.
        announce: called with each line that a person should read.
    """
    out = Path(out).resolve()
    tagged = _tagged_photos()
    unpack_demo(out / "data")
    evaluations: dict[str, Evaluation] = {}
    for title, (folder, settings) in RUNS.items():
        run = _train_shown(demo_recipe(out / "data", settings), out / "runs" / folder, title)
        evaluations[title] = evaluate_run(run)
        write_evaluation(evaluations[title], run.folder / "evaluation.json")
    report = out / "report.html"
    write_report(evaluations, report, main=MAIN, control=CONTROL, tagged=tagged)
    for line in _summary(evaluations):
        announce(line)
    return report


def _tagged_photos() -> dict[str, str]:
    """Return pictures of the sample photos' tags by the bundle in the package, as data URIs by the photos' names."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        return {}
    tagger = Tagger("default")
    pictures = {}
    for photo in (Path(spec.origin).parent / "data" / name for name in PHOTOS):
        if photo.exists():
            shown = view_photo(tagger, str(photo), tagger.codes(photo), tagger.labels(), TAGS)
            content = BytesIO()
            photo_sheet(shown).save(content, format="JPEG", quality=85)
            pictures[photo.stem] = "data:image/jpeg;base64," + b64encode(content.getvalue()).decode()
    return pictures


def demo_recipe(data: Path, settings: dict[str, Any]) -> Recipe:
    """Return a recipe on the unpacked data."""
    places = {
        "dataset": str(data / "dataset"),
        "regions": str(data / "regions"),
        "vectors": [str(data / "vectors.safetensors")],
    }
    return make_recipe({**places, **settings}, where="the demonstration")


def _train_shown(recipe: Recipe, folder: Path, title: str) -> Run:
    """Train with a progress bar."""
    with progress_bar(title, None) as advance:

        def report(now: Progress) -> None:
            metric = "" if now.metric is None else f"{recipe.validation_metric} {now.metric:.1f}"
            advance(now.step, now.steps, f"loss {now.terms['total']:.2f} {metric}")

        return train(recipe, folder, progress=report)


def _summary(evaluations: dict[str, Evaluation]) -> list[str]:
    """Return the lines of a short table: the metrics of the unseen labels alone and of all labels, in percent."""
    tasks = ("ZSL", "GZSL")
    lines = [" " * 26 + "".join(f"{task:>8} F1@3{'F1@5':>7}{'mAP':>7}" for task in tasks)]
    for title, evaluated in evaluations.items():
        reports = [evaluated.reports["lesa"][task] for task in tasks]
        metrics = [f"{r.f1[3]:13.1f}{r.f1[5]:7.1f}{r.mean_average_precision:7.1f}" for r in reports]
        lines.append(f"{title:26}" + "".join(metrics))
    return lines
