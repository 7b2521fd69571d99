"""`lesa demo`: training, evaluation and a report on the embedded data."""

from pathlib import Path

import click

from lesa.cli.options import PATH


@click.command()
@click.option("-o", "--out", type=PATH, default=Path("demo"), help="Folder of the runs and the report.")
def demo(out: Path) -> None:
    """Train LESA and other methods on the embedded region codes, evaluate them, and write an HTML report.

    \b
    Example:
      lesa demo -o demo
    """
    from lesa.learn.experiments.demo import run_demo

    report = run_demo(out, announce=click.echo)
    click.echo(f"open {report}")
