"""`lesa reproduce`: the paper's experiments from the official files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, device_option, out_option, set_option
from lesa.cli.tables import print_table

if TYPE_CHECKING:
    from lesa.learn.experiments.estimate import Estimate


@click.command()
@click.argument("experiment", type=click.Choice(["nus-wide", "nus-wide-clean", "nus-wide-multi-label", "open-images"]))
@click.argument("root", type=PATH)
@click.option("--photos", type=PATH, required=True, help="Folder of the photos.")
@click.option("--vectors", required=True, help="Label vectors; the paper uses GloVe, glove.6B.300d.txt.")
@click.option("--weights", type=PATH, help="Weights of VGG-19; the paper uses TF-slim's vgg_19.ckpt.")
@click.option("--backbone", default="vgg19", help="The backbone, as in `lesa extract`.")
@set_option("steps=20000")
@device_option
@click.option("--dry-run", is_flag=True, help="Only print the missing files, the work that is left and the disk space.")
@out_option("Folder of all results; finished parts in it are kept.")
def reproduce(
    experiment: str,
    root: Path,
    photos: Path,
    vectors: str,
    weights: Path | None,
    backbone: str,
    overrides: tuple[str, ...],
    device: str,
    dry_run: bool,
    out: Path,
) -> None:
    """Reproduce an experiment of the paper from the official files in ROOT, with a table beside the published rows.

    The command prepares, extracts, trains and evaluates. Stop it at any time: the same command continues.

    \b
    Example:
      lesa reproduce nus-wide NUS-WIDE --photos NUS-WIDE/Flickr --weights vgg_19.ckpt \\
        --vectors glove.6B.300d.txt -o reproduced/nus-wide --dry-run
    """
    from lesa.learn.experiments.estimate import estimate
    from lesa.learn.experiments.paper import Plan
    from lesa.learn.experiments.reproduce import reproduce as run_plan

    plan = Plan(experiment, root, photos, vectors, out, backbone, weights, overrides, device)
    _print_estimate(estimate(plan))
    if dry_run:
        return
    click.echo(f"open {run_plan(plan, announce=click.echo)}")


def _print_estimate(estimate: "Estimate") -> None:
    rows = [(stage.name, stage.left, _size(stage.disk) if stage.disk else "-") for stage in estimate.stages]
    print_table("the work that is left", ["stage", "left", "disk"], rows)
    click.echo(f"{_size(estimate.disk)} of regions will be written, {_size(estimate.free)} are free")
    for line in estimate.missing:
        click.echo(f"missing: {line}")


def _size(count: float) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
