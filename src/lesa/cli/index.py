"""`lesa index`: a folder's photos -> an index of their codes."""

import os
from pathlib import Path

import click

from lesa.cli.options import PATH, bundle_option
from lesa.errors import LesaError
from lesa.progress import progress_bar

HINT = "each search compares every photo: `pip install 'lesa-zsl[ann]'` and index again for quicker ones"


@click.command()
@click.argument("folder", type=PATH)
@bundle_option
@click.option("-o", "--out", type=PATH, required=True, help="The index to make, or to bring up to date: a folder.")
@click.option("--ann", is_flag=True, help="Build a vector index, also of fewer than 200,000 photos (extra `ann`).")
def index(folder: Path, bundle: Path, out: Path, ann: bool) -> None:
    """The photos below FOLDER -> an index for `lesa search`; a second call reads new and changed photos only.

    A call that was interrupted is gone on with by the same command. Photos that cannot be read are reported on
    standard error, and tried again by the next call. From 200,000 photos on a vector index is built, too, if the
    extra `ann` is installed: searches need not compare every photo then.

    \b
    Example:
      lesa index photos --bundle mine.lesa -o photos.index
    """
    # Before NumPy: its threads would fight for cores with the graph and the decoders.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from lesa.index.neighbours import can_build
    from lesa.index.update import update_index, update_neighbours, wants_neighbours
    from lesa.tagger import Tagger

    if ann and not can_build():
        raise LesaError("--ann needs Faiss: pip install 'lesa-zsl[ann]'")
    tagger = Tagger(bundle)
    with progress_bar("index", None) as advance:
        changes = update_index(out, folder, tagger, advance)
    for reason in changes.failed.values():
        click.echo(f"lesa: {reason}", err=True)
    click.echo(
        f"{out}: {changes.new:,} new, {changes.changed:,} changed, {changes.removed:,} removed, "
        f"{changes.unchanged:,} as they were, {len(changes.failed):,} failed"
    )
    if not ann and not wants_neighbours(out):
        return
    if not can_build():
        click.echo(f"lesa: {out}: {HINT}", err=True)
        return
    with progress_bar("vector index", None) as advance:
        update_neighbours(out, tagger, advance)
