"""`lesa export`: a trained run -> a bundle."""

from pathlib import Path

import click

from lesa.cli.options import PATH, out_option, regions_option
from lesa.files import read_lines


@click.command()
@click.argument("run", type=PATH)
@out_option("The bundle to write: NAME.lesa.")
@click.option("--licence", help="Licence of the weights, for the model card.")
@click.option("--words", type=PATH, help="File of more words, one per line; their vectors are added to the bundle.")
@regions_option
@click.option(
    "--hierarchy", type=PATH, help="File of labels with their parents, such as `animal|dog` (for `lesa write`)."
)
@click.option(
    "--small", is_flag=True, help="Store weights in 16 bits and label vectors in 8 bits: about half the size."
)
@click.option(
    "--offline", is_flag=True, help="Take vectors of words from the bundle only, and compose those of phrases."
)
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
    """Make a bundle for `lesa tag` from a trained run: one file that needs no PyTorch; its scores are checked.

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
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, scores within {difference:.0e} of PyTorch's (share of their spread)"
    )
