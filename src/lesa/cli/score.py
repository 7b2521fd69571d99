"""`lesa score`: any method's scores -> metrics by named rules."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesa.cli.options import PATH, all_rules, k_option, rules_option
from lesa.cli.tables import print_reports, print_table
from lesa.files import write_json
from lesa.progress import progress_bar

if TYPE_CHECKING:
    from lesa.evaluation.score import MatrixEvaluation


@click.command()
@click.argument("scores", type=PATH)
@click.argument("targets", type=PATH)
@rules_option
@k_option
@click.option(
    "--unseen", type=click.IntRange(min=0), default=0, help="Number of unseen labels; they are the first columns."
)
@click.option("--zeros-absent", is_flag=True, help="A target of 0 means absent, not `not annotated`.")
@click.option(
    "--bootstrap",
    "draws",
    type=click.IntRange(min=0),
    default=0,
    help="Number of draws for 95 % intervals; 200 are enough.",
)
@click.option("--against", type=PATH, help="Another method's scores, for the paired difference and its interval.")
@click.option("-o", "--out", type=PATH, help="JSON file to write.")
def score(
    scores: Path,
    targets: Path,
    rules: tuple[str, ...],
    ks: tuple[int, ...],
    unseen: int,
    zeros_absent: bool,
    draws: int,
    against: Path | None,
    out: Path | None,
) -> None:
    """Evaluate any method's scores by named metric rules.

    SCORES and TARGETS are matrices, images x labels: .npy (memory-mapped, any size) or .safetensors. Scores are any
    numbers, higher is better. Targets are 1 (present), -1 (absent) or 0 (not annotated).

    \b
    Example:
      lesa score scores.npy targets.npy --rules all -k 3 -k 5 --unseen 81
      lesa score mine.npy targets.npy --against theirs.npy
    """
    from lesa.evaluation import score as scoring
    from lesa.evaluation.bootstrap import DRAWS
    from lesa.evaluation.report import check_k

    scores_NC, targets_NC, other_NC = scoring.read_files(scores, targets, against, zeros_absent)
    draws = draws or (DRAWS if against else 0)
    written: dict[str, Any] = {}
    columns = scoring.matrix_tasks(scores_NC.shape[1], unseen)
    for part in columns.values():
        for name in all_rules(rules):
            check_k(ks, name, part.stop - part.start)
    for task, part in columns.items():
        evaluated = {}
        for name in all_rules(rules):
            with progress_bar(f"{task}, {name}", None) if draws else nullcontext() as advance:
                evaluated[name] = scoring.evaluate_matrix(
                    scores_NC[:, part],
                    targets_NC[:, part],
                    name,
                    ks,
                    draws,
                    None if other_NC is None else other_NC[:, part],
                    advance or (lambda done, total: None),
                )
        print_reports(f"{scores}, {task}, percent", "rules", {name: each.report for name, each in evaluated.items()})
        for name, each in evaluated.items():
            if draws:
                _print_intervals(f"{task}, rules {name!r}, over images", each, against)
        written[task] = {name: each.to_dict() for name, each in evaluated.items()}
    if out:
        write_json(out, {"scores": str(scores), "targets": str(targets), "tasks": written})
        click.echo(f"written: {out}")


def _print_intervals(title: str, evaluated: "MatrixEvaluation", against: Path | None) -> None:
    """Print one row per metric: its value and its 95 % interval over images, and its difference to the other scores."""
    header = ["metric", "percent", "95 % interval", *((f"minus {against}", "95 % interval") if against else ())]
    pairs = [(evaluated.intervals, "{:.2f}"), (evaluated.difference, "{:+.2f}")]
    rows = []
    for name in evaluated.intervals:
        row = [name]
        for metrics, form in pairs if against else pairs[:1]:
            each = metrics[name]
            row += [form.format(each.value), f"{form.format(each.low)} to {form.format(each.high)}"]
        rows.append(row)
    print_table(title, header, rows)
