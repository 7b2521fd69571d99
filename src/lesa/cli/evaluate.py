"""`lesa evaluate`: a trained run -> metrics by named rules."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, all_rules, k_option, regions_option, rules_option
from lesa.cli.tables import print_reports, print_table

if TYPE_CHECKING:
    from lesa.evaluation.report import Report
    from lesa.labels import Vocabulary


@click.command()
@click.argument("run", type=PATH)
@click.option("--split", default="test", help="`test`, `validation` or `train`.")
@rules_option
@k_option
@click.option("--checkpoint", type=click.Choice(["last", "best"]), help="The checkpoint of the recipe if not given.")
@click.option("--dataset", type=PATH, help="Where the data set is, if it was moved.")
@regions_option
@click.option("--per-label", is_flag=True, help="Also print the average precision of each label.")
@click.option("--save-scores", type=PATH, help="Folder for the scores and targets, for `lesa score`.")
@click.option("-o", "--out", type=PATH, help="JSON file to write; a file in RUN if not given.")
def evaluate(
    run: Path,
    split: str,
    rules: tuple[str, ...],
    ks: tuple[int, ...],
    checkpoint: str | None,
    dataset: Path | None,
    regions: Path | None,
    per_label: bool,
    save_scores: Path | None,
    out: Path | None,
) -> None:
    """Evaluate a run on unseen labels (ZSL), all labels (GZSL) and seen labels: P, R, F1 at K and mAP by named rules.

    \b
    Example:
      lesa evaluate runs/flickr8k --rules lesa --rules sklearn -k 3 -k 5
    """
    from lesa.learn.evaluate import evaluate_run, write_evaluation, write_scores
    from lesa.learn.run import open_run

    opened = open_run(run)
    evaluated = evaluate_run(
        opened, split=split, rules=all_rules(rules), k=ks, checkpoint=checkpoint, dataset=dataset, regions=regions
    )
    path = out or run / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")
    write_evaluation(evaluated, path)
    for name, tasks in evaluated.reports.items():
        print_reports(f"{run}, {split}, rules {name!r}, percent", "task", tasks)
        if per_label:
            _print_per_label(tasks["GZSL"], evaluated.vocabulary)
    if save_scores:
        write_scores(evaluated, save_scores)
        matrices = f"{save_scores / 'scores.npy'} {save_scores / 'targets.npy'}"
        click.echo(f"next: lesa score {matrices} --unseen {len(evaluated.vocabulary.unseen)}")
    click.echo(f"written: {path}")


def _print_per_label(report: "Report", vocabulary: "Vocabulary") -> None:
    """Print the average precision of each label, the highest first."""
    unseen = set(vocabulary.unseen)
    pairs = zip(report.average_precision_C, vocabulary.names, strict=True)
    labels = sorted(((precision, name) for precision, name in pairs if precision is not None), reverse=True)
    rows = [(name, "unseen" if name in unseen else "seen", f"{precision:.2f}") for precision, name in labels]
    print_table("average precision by label, percent", ["label", "", "AP"], rows)
