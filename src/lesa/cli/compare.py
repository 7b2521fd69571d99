"""`lesa compare`: methods x seeds on one data set -> a table."""

from pathlib import Path
from typing import Any

import click

from lesa.cli.options import JOBS_OPTION, PATH, SEEDS_OPTION


@click.command()
@click.argument("config", type=PATH)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change it: dataset=prepared/other.")
@SEEDS_OPTION
@JOBS_OPTION
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of all runs and the tables, or to go on with.")
def compare(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """Train and score a list of methods x seeds on one data set; write a table, a CSV file and a metric.

    What is done is skipped. A method's grid is tried on the first seed with a fifth of the seen labels held out, and
    judged on the validation photos.

    \b
    Example:
      lesa compare configs/compare-flickr8k.toml -o runs/compare --jobs 2
    """
    from lesa.learn.experiments.comparison import read_comparison

    run_comparison(read_comparison(config, tuple(range(seeds or 0)), overrides), out, device, jobs)


def run_comparison(comparison: Any, out: Path, device: str, jobs: int) -> None:
    """Run a comparison, write its results and say where they are."""
    from lesa.learn.experiments.compare import chance
    from lesa.learn.experiments.compare import compare as run_all
    from lesa.learn.experiments.table import write_results

    results = run_all(comparison, out, device, jobs)
    write_results(results, chance(comparison.dataset), comparison.reference, out)
    click.echo((out / "table.md").read_text(encoding="utf-8"))
    click.echo(f"written: {out / 'table.md'}, {out / 'metrics.csv'}, {out / 'plot.png'}")
