"""`lesa compare`: methods x seeds on one data set -> a table."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, device_option, jobs_option, out_option, seeds_option, set_option

if TYPE_CHECKING:
    from lesa.learn.experiments.comparison import Comparison


@click.command()
@click.argument("config", type=PATH)
@set_option("dataset=prepared/other")
@seeds_option
@jobs_option
@device_option
@out_option("Folder of all runs and the tables; finished runs in it are kept.")
def compare(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """Train and evaluate a list of methods x seeds on one data set; write tables, a CSV file and a plot.

    Finished runs are skipped. The settings in a method's grid are tried with the first seed, without one fifth of the
    seen labels, and evaluated on the validation photos.

    \b
    Example:
      lesa compare configs/compare-flickr8k.toml -o runs/compare --jobs 2
    """
    from lesa.learn.experiments.comparison import read_comparison

    run_comparison(read_comparison(config, tuple(range(seeds or 0)), overrides), out, device, jobs)


def run_comparison(comparison: "Comparison", out: Path, device: str, jobs: int) -> None:
    """Run a comparison, write its results, and print the tables and their paths."""
    from lesa.learn.experiments.compare import chance_metrics
    from lesa.learn.experiments.compare import compare as run_all
    from lesa.learn.experiments.table import write_results

    results = run_all(comparison, out, device, jobs)
    write_results(results, chance_metrics(comparison.dataset), comparison.reference, out)
    click.echo((out / "table.md").read_text(encoding="utf-8"))
    click.echo(f"written: {out / 'table.md'}, {out / 'metrics.csv'}, {out / 'plot.png'}")
