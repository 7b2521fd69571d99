"""`lesa index`: a folder's photos -> an index of their codes; `lesa search`: words or a photo -> photos of an index."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli_tables import print_table
from lesa.cli_tag import bundle_option, note_composed, printable
from lesa.errors import LesaError
from lesa.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesa.search import Hit, Index

PATH = click.Path(path_type=Path)
HINT = "each search compares every photo: `pip install 'lesa-zsl[ann]'` and index again for quicker ones"
HEADER = ("photo", "score", "left", "top", "right", "bottom")


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
    from lesa.indexing import update_index, update_neighbours, wants_neighbours
    from lesa.neighbours import can_build
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


@click.command()
@click.argument("index", type=PATH)
@click.argument("words", required=False)
@click.option("--like", type=PATH, help="A photo to find similar ones to, instead of words.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Photos at most.")
@click.option("--exact", is_flag=True, help="Compare every photo, also where there is a vector index.")
@click.option("--sheet", type=PATH, help="Draw the photos found, with the place in each, as a new picture: NAME.png.")
@click.option("--bundle", type=PATH, help="Where the bundle of the index is now, if it moved.")
@click.option("--vectors", multiple=True, help="Where the bundle's source of word vectors is now. May be repeated.")
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl"]), default="table", help="`jsonl`: JSON Lines, full paths."
)
def search(
    index: Path,
    words: str | None,
    like: Path | None,
    top: int,
    exact: bool,
    sheet: Path | None,
    bundle: Path | None,
    vectors: tuple[str, ...],
    form: str,
) -> None:
    """Photos of an index by any word or phrase, or by a photo; with the place in each. No indexed photo is read.

    \b
    Example:
      lesa search photos.index "red car" --top 5
      lesa search photos.index "red car" --sheet red-cars.png
      lesa search photos.index --like holiday/beach.jpg --format jsonl
    """
    from lesa.index_files import read_manifest
    from lesa.search import Index
    from lesa.tagger import Tagger

    if bool(words) == bool(like):
        raise LesaError("give words to search for, or a photo with --like, and not both")
    if sheet:
        check_sheet(sheet)
    tagger = Tagger(bundle or read_manifest(index)["bundle"], vectors)
    opened = Index(index, tagger, exact)
    if words:
        note_composed(tagger.labels([words]).composed)
    hits = opened.like(like, top) if like else opened.find(words or "", top)
    if sheet:
        write_sheet(sheet, opened, hits)
    if form == "jsonl":
        print_lines(opened, hits)
    else:
        title = f"{f'like {like}' if like else words} in {opened.folder} ({len(opened):,} photos)"
        print_table(printable(title), HEADER, [row(hit) for hit in hits])


def check_sheet(file: Path) -> None:
    """Refuse what is no new picture: it may be an original photo."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise LesaError(f"{file} is no name of a picture: give one that ends in .png or .jpg")
    if file.exists():
        raise LesaError(f"{file} exists already: give the sheet another name")


def write_sheet(file: Path, index: "Index", hits: "Sequence[Hit]") -> None:
    """Write the photos found as a picture."""
    from lesa.contact_sheet import contact_sheet
    from lesa.files import replacing

    picture = contact_sheet(index.folder, hits)
    with replacing(file) as temporary:
        picture.save(temporary)


def print_lines(index: "Index", hits: "Sequence[Hit]") -> None:
    """Print a JSON object a photo."""
    for hit in hits:
        entry = {"photo": str(index.folder / hit.photo), "score": round(hit.score, 4)}
        click.echo(json.dumps(entry | {"box": hit.box, "size": hit.size}))


def row(hit: "Hit") -> list[str]:
    """Return a photo's row of the table."""
    return [printable(hit.photo), f"{hit.score:.3f}", *map(str, hit.box)]
