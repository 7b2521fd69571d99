"""`lesa train`: a recipe -> a trained run."""

from pathlib import Path

import click

from lesa.cli.options import PATH
from lesa.progress import progress_bar


@click.command()
@click.argument("config", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the run; a begun run is gone on with.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key: model.attentions=1.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
def train(config: Path, out: Path, overrides: tuple[str, ...], device: str) -> None:
    """Train by a recipe (TOML); stop it at any moment, the same command goes on.

    \b
    Example:
      lesa train configs/flickr8k.toml -o runs/flickr8k --set seed=1
    """
    from lesa.learn.recipe import read_recipe
    from lesa.learn.train import Progress
    from lesa.learn.train import train as train_run

    recipe = read_recipe(config, list(overrides))
    with progress_bar("train", None) as advance:

        def report(now: Progress) -> None:
            terms = " ".join(f"{name} {value:.3g}" for name, value in now.terms.items())
            metric = "" if now.metric is None else f" | validation {recipe.validation_metric} {now.metric:.2f}"
            advance(now.step, now.steps, f"{terms}{metric}")

        run = train_run(recipe, out, device=device, progress=report)
    click.echo(f"trained: {run.folder} (next: lesa evaluate {run.folder})")
