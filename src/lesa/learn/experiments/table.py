"""The results of a comparison for readers: tables in Markdown, a CSV file, a plot."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from lesa.evaluation.bootstrap import Interval, interval
from lesa.evaluation.tables import markdown_table
from lesa.files import replacing, write_text

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Method -> the results of its runs (`evaluation.json`), one for each seed."""
Chance = Mapping[str, Mapping[str, float]]
"""Task -> metric -> its value for random scores."""

SHOWN = ("F1@3", "F1@5", "mAP")
TITLES = {
    "ZSL": "Unseen labels alone (ZSL)",
    "GZSL": "Unseen and seen labels together (GZSL)",
    "seen": "Seen labels alone (multi-label learning)",
}


def write_results(results: Results, by_chance: Chance, reference: str, out: Path) -> None:
    """Write `table.md`, `metrics.csv` and `plot.png`."""
    write_text(out / "table.md", markdown(results, by_chance, reference))
    _write_csv(results, out / "metrics.csv")
    draw(results, by_chance, out / "plot.png")


def markdown(results: Results, by_chance: Chance, reference: str) -> str:
    """Return the tables: metrics by task, with spread over seeds and difference to the reference; time and memory."""
    parts = [LEGEND.format(reference=reference)]
    for task, title in ((task, title) for task, title in TITLES.items() if task in by_chance):
        parts += [f"## {title}", _task_table(results, by_chance, reference, task)]
    parts += ["## Time and memory", _cost_table(results)]
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Percent, rules `lesa`; mean ± standard deviation over seeds where there are several. The columns with a minus are "
    "the difference to {reference} on the same photos, with its 95 % interval over test photos (not over seeds). They "
    "are bold if 0 is outside the interval."
)


def _task_table(results: Results, by_chance: Chance, reference: str, task: str) -> str:
    """Return the table of one task; methods that do not score its labels are left out."""
    header = ["method", "seeds", *SHOWN, *(f"{name} - {reference}" for name in SHOWN)]
    rows = [["chance", "-", *(f"{by_chance[task][name]:.1f}" for name in SHOWN), *("-" for _ in SHOWN)]]
    others = [run for run in results[reference] if task in run["metrics"]]
    for name, runs in results.items():
        if task not in runs[0]["metrics"]:
            continue
        cells = [_mean_and_spread([run["metrics"][task][metric] for run in runs]) for metric in SHOWN]
        compared = name != reference and others
        minus = [_format_difference(difference(runs, others, task, metric)) if compared else "-" for metric in SHOWN]
        rows.append([name, str(len(runs)), *cells, *minus])
    return markdown_table(header, rows)


def _cost_table(results: Results) -> str:
    """Return the training time (with validation) and the largest memory of each method's processes."""
    rows = [
        [name, _mean_and_spread([run["seconds"] for run in runs]), f"{max(run['memory'] for run in runs) / 1e6:.0f}"]
        for name, runs in results.items()
    ]
    return markdown_table(["method", "training, s", "memory, MB"], rows)


def difference(
    runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], task: str, metric: str
) -> Interval:
    """Return the mean difference of two methods' runs, with its 95 % interval over the test photos.

    The draws have the same photos for all runs. The draws of each method are averaged over its seeds.
    """
    values, draws = zip(
        *(
            (
                mean(run["metrics"][task][metric] for run in group),
                np.mean([run["draws"][task][metric] for run in group], axis=0),
            )
            for group in (runs, others)
        ),
        strict=True,
    )
    return interval(values[0] - values[1], draws[0] - draws[1])


def _format_difference(minus: Interval) -> str:
    text = f"{minus.value:+.1f} ({minus.low:+.1f} to {minus.high:+.1f})"
    return text if minus.low <= 0 <= minus.high else f"**{text}**"


def _mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean and, for several values, the standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _write_csv(results: Results, path: Path) -> None:
    """Write one row per method, seed, task and metric."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "task", "metric", "percent"])
        for name, runs in results.items():
            for run in runs:
                for task, metrics in run["metrics"].items():
                    writer.writerows(
                        [name, run["seed"], task, metric, f"{value:.4f}"] for metric, value in metrics.items()
                    )


def draw(results: Results, by_chance: Chance, path: Path) -> None:
    """Draw runs as dots and the mean of each method as a bar: F1@3 and mAP of ZSL and GZSL, or of the seen labels."""
    from matplotlib.figure import Figure

    drawn = ("ZSL", "GZSL") if "ZSL" in by_chance else ("seen",)
    panels = [(task, name) for task in drawn for name in ("F1@3", "mAP")]
    methods = [name for name, runs in results.items() if drawn[0] in runs[0]["metrics"]][::-1]
    plot = Figure(figsize=(11, 1.2 + 0.3 * len(methods)), layout="constrained")
    for axes, (task, name) in zip(plot.subplots(1, len(panels), sharey=True), panels, strict=True):
        for row, method in enumerate(methods):
            values = [run["metrics"][task][name] for run in results[method]]
            axes.barh(row, mean(values), color="#9db8d2", height=0.6)
            axes.plot(values, [row] * len(values), "o", color="#23425f", markersize=3)
        axes.axvline(by_chance[task][name], color="#b04a3a", linewidth=1)
        axes.set_title(f"{task} {name}", fontsize=10)
        axes.set_yticks(range(len(methods)), methods, fontsize=8)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    plot.supxlabel("percent; a dot is one seed, a bar is the mean, the red line is random scores", fontsize=9)
    with replacing(path) as temporary:
        plot.savefig(temporary, dpi=110)
