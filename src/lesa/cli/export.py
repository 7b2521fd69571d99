"""`lesa export`: a trained run -> a bundle."""

from pathlib import Path

import click

from lesa.cli.options import PATH
from lesa.files import read_lines


@click.command()
@click.argument("run", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The bundle to write: NAME.lesa.")
@click.option("--licence", help="Licence of the weights, for the model card; unknown if not given.")
@click.option("--words", type=PATH, help="Further words, one per line, whose vectors the bundle shall carry.")
@click.option("--regions", type=PATH, help="Where the run's region store is, if it moved.")
@click.option("--hierarchy", type=PATH, help="What labels are kinds of, a line each: `animal|dog` (for `lesa write`).")
@click.option("--small", is_flag=True, help="Store weights in 16 bits and label vectors in 8: about half the size.")
@click.option("--offline", is_flag=True, help="Look words up in the bundle alone; put phrases together from them.")
def export(
    run: Path,
    out: Path,
    licence: str | None,
    words: Path | None,
    regions: Path | None,
    hierarchy: Path | None,
    small: bool,
    offline: bool,
) -> None:
    """A trained run -> a bundle for `lesa tag`: one file that needs no PyTorch, checked against it.

    \b
    Example:
      lesa export runs/flickr8k -o flickr8k.lesa --licence CC0-1.0
      lesa export runs/flickr8k -o small.lesa --words words.txt --small --offline
    """
    from lesa.learn.export import export_run
    from lesa.learn.run import open_run

    further = read_lines(words) if words else ()
    paths = [line.split("|") for line in read_lines(hierarchy)] if hierarchy else []
    difference = export_run(
        open_run(run),
        out,
        licence=licence,
        words=further,
        regions=regions,
        parents={path[-1].strip(): tuple(name.strip() for name in path[:-1]) for path in paths},
        small=small,
        offline=offline,
    )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, within {difference:.0e} of PyTorch's scores' spread")
