"""`lesa search`: words or a photo -> photos of an index."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, note_composed, printable, vectors_option
from lesa.cli.tables import print_table
from lesa.errors import LesaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesa.index.search import Hit, Index

HEADER = ("photo", "score", "left", "top", "right", "bottom")


@click.command()
@click.argument("index", type=PATH)
@click.argument("words", required=False)
@click.option("--like", type=PATH, help="Search for photos that are similar to this photo, instead of words.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Number of photos.")
@click.option("--exact", is_flag=True, help="Compare all photos, also if there is a vector index.")
@click.option("--sheet", type=PATH, help="New picture of the photos and the place in each: NAME.png.")
@click.option("--bundle", type=PATH, help="Where the bundle of the index is, if it was moved.")
@vectors_option
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
    """Search the photos of an index by any word or phrase, or by a photo; the result has the place in each photo.

    The indexed photos are not read again.

    \b
    Example:
      lesa search photos.index "red car" --top 5
      lesa search photos.index "red car" --sheet red-cars.png
      lesa search photos.index --like holiday/beach.jpg --format jsonl
    """
    from lesa.index.files import read_index_manifest
    from lesa.index.search import Index
    from lesa.tagger import Tagger

    if bool(words) == bool(like):
        raise LesaError("give words to search for, or a photo with --like, and not both")
    if sheet:
        _check_sheet(sheet)
    tagger = Tagger(bundle or read_index_manifest(index)["bundle"], vectors)
    opened = Index(index, tagger, exact)
    if words:
        note_composed(tagger.labels([words]).composed)
    hits = opened.like(like, top) if like else opened.find(words or "", top)
    if sheet:
        _write_sheet(sheet, opened, hits)
    if form == "jsonl":
        _print_lines(opened, hits)
    else:
        title = f"{f'like {like}' if like else words} in {opened.folder} ({len(opened):,} photos)"
        print_table(printable(title), HEADER, [_row(hit) for hit in hits])


def _check_sheet(file: Path) -> None:
    """Refuse a file that exists, which may be an original photo, and names that are not names of pictures."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise LesaError(f"{file} is not the name of a picture: give a name that ends in .png or .jpg")
    if file.exists():
        raise LesaError(f"{file} exists already: give the sheet another name")


def _write_sheet(file: Path, index: "Index", hits: "Sequence[Hit]") -> None:
    from lesa.files import replacing
    from lesa.index.contact_sheet import contact_sheet

    picture = contact_sheet(index.folder, hits)
    with replacing(file) as temporary:
        picture.save(temporary)


def _print_lines(index: "Index", hits: "Sequence[Hit]") -> None:
    """Print one JSON object per photo."""
    for hit in hits:
        entry = {"photo": str(index.folder / hit.photo), "score": round(hit.score, 4)}
        click.echo(json.dumps(entry | {"box": hit.box, "size": hit.size}))


def _row(hit: "Hit") -> list[str]:
    return [printable(hit.photo), f"{hit.score:.3f}", *map(str, hit.box)]
