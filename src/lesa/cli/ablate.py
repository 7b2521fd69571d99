"""`lesa ablate`: a recipe with one thing changed at a time -> a table."""

from pathlib import Path
from typing import Any

import click

from lesa.cli.compare import run_comparison
from lesa.cli.options import JOBS_OPTION, PATH, SEEDS_OPTION


@click.command()
@click.argument("config", type=PATH)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: epochs=12.")
@SEEDS_OPTION
@JOBS_OPTION
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of all runs and the tables, or to go on with.")
def ablate(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """A recipe (TOML) with one thing changed at a time: attentions, loss terms, front, vectors.

    \b
    Example:
      lesa ablate configs/flickr8k.toml -o runs/ablation --seeds 2 --set epochs=12
    """
    from lesa.learn.experiments.ablate import ablation
    from lesa.learn.recipe import merge, parse_override

    changes: dict[str, Any] = {}
    for override in overrides:
        merge(changes, parse_override(override))
    run_comparison(ablation(config, tuple(range(seeds or 1)), changes), out, device, jobs)
