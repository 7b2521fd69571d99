"""`lesa index`: a folder's photos -> an index of their codes."""

from pathlib import Path

import click

from lesa.cli.options import PATH, bundle_option, one_thread, out_option
from lesa.errors import LesaError
from lesa.progress import progress_bar

HINT = "each search compares all photos; for faster searches, `pip install 'lesa-zsl[ann]'` and index again"


@click.command()
@click.argument("folder", type=PATH)
@bundle_option
@out_option("Folder of the index; an index in it is updated.")
@click.option("--ann", is_flag=True, help="Build a vector index also for fewer than 200,000 photos (extra `ann`).")
def index(folder: Path, bundle: Path, out: Path, ann: bool) -> None:
    """Make an index of the photos below FOLDER for `lesa search`. Another call reads only new and changed photos.

    The same command continues after an interruption. Photos that cannot be read are reported on standard error, and the
    next call tries them again. For 200,000 or more photos a vector index is also built if the extra `ann` is installed;
    then a search does not compare all photos.

    \b
    Example:
      lesa index photos --bundle mine.lesa -o photos.index
    """
    one_thread()
    from lesa.index.neighbours import has_faiss
    from lesa.index.update import update_index, update_neighbours, wants_neighbours
    from lesa.tagger import Tagger

    if ann and not has_faiss():
        raise LesaError("--ann needs Faiss: pip install 'lesa-zsl[ann]'")
    tagger = Tagger(bundle)
    with progress_bar("index", None) as advance:
        changes = update_index(out, folder, tagger, advance)
    for reason in changes.failed.values():
        click.echo(f"lesa: {reason}", err=True)
    click.echo(
        f"{out}: {changes.new:,} new, {changes.changed:,} changed, {changes.removed:,} removed, "
        f"{changes.unchanged:,} unchanged, {len(changes.failed):,} failed"
    )
    if not ann and not wants_neighbours(out):
        return
    if not has_faiss():
        click.echo(f"lesa: {out}: {HINT}", err=True)
        return
    with progress_bar("vector index", None) as advance:
        update_neighbours(out, tagger, advance)
