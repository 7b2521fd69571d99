"""`lesa reproduce`: the paper's experiments from the official files."""

from pathlib import Path
from typing import Any

import click

from lesa.cli.options import PATH
from lesa.cli.tables import print_table


@click.command()
@click.argument("experiment", type=click.Choice(["nus-wide", "nus-wide-clean", "nus-wide-multi-label", "open-images"]))
@click.argument("root", type=PATH)
@click.option("--photos", type=PATH, required=True, help="Folder of the photos.")
@click.option("--vectors", required=True, help="Label vectors; the paper's are GloVe's, glove.6B.300d.txt.")
@click.option("--weights", type=PATH, help="VGG-19's weights; the paper's are TF-slim's vgg_19.ckpt.")
@click.option("--backbone", default="vgg19", help="Another backbone than the paper's, as `lesa extract` takes it.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: steps=20000.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("--dry-run", is_flag=True, help="Only say what is missing, and what disk and time it will take.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of everything that is made, or to go on with.")
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
    """The paper's experiment from the official files in ROOT, and its table beside the published rows.

    Prepares, extracts, trains and evaluates; stop it at any moment, the same command goes on.

    \b
    Example:
      lesa reproduce nus-wide NUS-WIDE --photos NUS-WIDE/Flickr --weights vgg_19.ckpt \\
        --vectors glove.6B.300d.txt -o reproduced/nus-wide --dry-run
    """
    from lesa.learn.experiments.estimate import look_ahead
    from lesa.learn.experiments.paper import Plan
    from lesa.learn.experiments.reproduce import reproduce as run_plan

    plan = Plan(experiment, root, photos, vectors, out, backbone, weights, overrides, device)
    outlook = look_ahead(plan)
    _print_outlook(outlook)
    if dry_run:
        return
    click.echo(f"open {run_plan(plan, announce=click.echo)}")


def _print_outlook(outlook: Any) -> None:
    """Print what a reproduction lacks, and what is left of each stage."""
    rows = [
        (stage.name, stage.left, size(stage.disk) if stage.disk else "-", _duration(stage.seconds))
        for stage in outlook.stages
    ]
    print_table("what is left, on this machine", ["stage", "left", "disk", "about"], rows)
    click.echo(f"{size(outlook.disk)} of regions will be written, {size(outlook.free)} are free")
    click.echo("measured on a few photos and steps; reading photos and regions, validation and judging come on top")
    for line in outlook.missing:
        click.echo(f"missing: {line}")


def size(count: float) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    """Return a time as people read it."""
    if not seconds:
        return "-"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{max(seconds / 60, 0.1):,.1f} min"
