"""Write the table of docs/results.md from the runs that benchmarks/flickr8k.sh made, and the validation curves.

python benchmarks/flickr8k_table.py runs/flickr8k --curves docs/pictures/validation.png
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

METRICS = [(task, metric) for task in ("ZSL", "GZSL") for metric in ("F1@3", "F1@5", "mAP")]


def metric_of(evaluation: dict[str, Any], task: str, metric: str) -> float:
    """Return one metric of an evaluation under the rules `lesa`, in percent."""
    report = evaluation["reports"]["lesa"][task]
    return float(report["mean_average_precision"] if metric == "mAP" else report["f1"][metric.removeprefix("F1@")])


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def minutes(run: Path) -> float:
    """Return the training time of a run in minutes, with validation."""
    steps, seconds = 0, 0.0
    for line in read_log(run):
        seconds += (line["step"] - steps) / line["steps_per_second"]
        steps = line["step"]
    return seconds / 60


def spread(values: list[float]) -> str:
    """Return the mean, and the standard deviation if there are several values."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def table(folder: Path) -> str:
    """Return a Markdown table with one row per setting."""
    header = ["run", "seeds", *(f"{task} {metric}" for task, metric in METRICS), "minutes"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for setting in sorted(path for path in folder.iterdir() if path.is_dir()):
        runs = [path.parent for path in sorted(setting.glob("seed-*/evaluation.json"))]
        if not runs:
            continue
        evaluations = [json.loads((run / "evaluation.json").read_text()) for run in runs]
        cells = [spread([metric_of(evaluated, *metric) for evaluated in evaluations]) for metric in METRICS]
        time = spread([minutes(run) for run in runs])
        lines.append("| " + " | ".join([setting.name, str(len(runs)), *cells, time]) + " |")
    return "\n".join(lines)


def draw_curves(folder: Path, picture: Path) -> None:
    """Draw the validation F1@5 of every published run over its epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plot, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for colour, setting in enumerate(sorted(folder.glob("published-*"))):
        for i, evaluated in enumerate(sorted(setting.glob("seed-*/evaluation.json"))):
            curve = [line["validation"]["F1@5"] for line in read_log(evaluated.parent) if "validation" in line]
            label = setting.name if i == 0 else None
            axes.plot(range(1, len(curve) + 1), curve, color=f"C{colour}", linewidth=1.2, label=label)
    axes.set(
        xlabel="epoch", ylabel="validation F1@5 of the seen labels, %", title="The published recipe, one line per seed"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    plot.savefig(picture, dpi=110)


def main() -> None:
    """Print the table; draw the curves if a file is given for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--curves", type=Path)
    arguments = parser.parse_args()
    print(table(arguments.runs))
    if arguments.curves:
        draw_curves(arguments.runs, arguments.curves)


if __name__ == "__main__":
    main()
