"""`lesa train`: a recipe -> a trained run."""

from pathlib import Path

import click

from lesa.cli.options import PATH, device_option, out_option, set_option


@click.command()
@click.argument("config", type=PATH)
@out_option("Folder of the run; an unfinished run is resumed.")
@set_option("model.attentions=1")
@device_option
def train(config: Path, out: Path, overrides: tuple[str, ...], device: str) -> None:
    """Train by a recipe (TOML). Stop it at any time: the same command continues.

    \b
    Example:
      lesa train configs/flickr8k.toml -o runs/flickr8k --set seed=1
    """
    from lesa.learn.recipe import read_recipe
    from lesa.learn.train_bar import train_with_bar

    run = train_with_bar(read_recipe(config, list(overrides)), out, device=device)
    if run.classes is not None:
        click.echo(f"classes of the backbone that have a vector: {run.classes['kept']} of {run.classes['of']}")
    click.echo(f"trained: {run.folder} (next: lesa evaluate {run.folder})")
