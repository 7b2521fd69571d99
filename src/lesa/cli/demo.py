"""`lesa demo`: training, evaluation and a report on the embedded data."""

from pathlib import Path

import click

from lesa.cli.options import PATH


@click.command()
@click.option("-o", "--out", type=PATH, default=Path("demo"), help="Folder of the runs and the report.")
@click.option("--photos", type=PATH, help="Labelled photos (.csv or .jsonl) that the report shows with their tags.")
def demo(out: Path, photos: Path | None) -> None:
    """Train LESA and other methods on the embedded region codes, evaluate them, and write an HTML report.

    The report also shows tags by the bundle in the package if --photos names a file of labels that lies beside its
    photos, such as examples/photos/labels.csv in a clone.

    \b
    Example:
      lesa demo -o demo
      lesa demo -o demo --photos examples/photos/labels.csv
    """
    from lesa.learn.experiments.demo import run_demo

    report = run_demo(out, announce=click.echo, photos=photos)
    click.echo(f"open {report}")
