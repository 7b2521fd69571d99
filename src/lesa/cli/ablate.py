"""`lesa ablate`: variations of a recipe, each with one change -> a table."""

from pathlib import Path
from typing import Any

import click

from lesa.cli.compare import run_comparison
from lesa.cli.options import PATH, device_option, jobs_option, out_option, seeds_option, set_option


@click.command()
@click.argument("config", type=PATH)
@set_option("epochs=12")
@seeds_option
@jobs_option
@device_option
@out_option("Folder of all runs and the tables; finished runs in it are kept.")
def ablate(config: Path, overrides: tuple[str, ...], seeds: int | None, jobs: int, device: str, out: Path) -> None:
    """Compare variations of a recipe (TOML), each with one change: attentions, loss terms, front, vectors.

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
