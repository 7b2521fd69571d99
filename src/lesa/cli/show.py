"""`lesa show`: a bundle or a run x photos -> pictures of where each tag comes from."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, find_photos, labels_option, note_composed, one_thread, regions_option, vectors_option
from lesa.errors import LesaError
from lesa.files import read_lines

if TYPE_CHECKING:
    from lesa.tagger import Tagger

TOP = 4


@click.command()
@click.argument("model", type=PATH)
@click.argument("photos", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, default=Path("shown"), help="Folder of the pictures.")
@click.option("--top", type=click.IntRange(min=1), default=TOP, help="Number of tags per photo.")
@labels_option
@vectors_option
@click.option("--sheet", is_flag=True, help="Also write sheet.png: all photos with their three best tags.")
@regions_option
def show(
    model: Path,
    photos: tuple[str, ...],
    out: Path,
    top: int,
    labels: Path | None,
    vectors: tuple[str, ...],
    sheet: bool,
    regions: Path | None,
) -> None:
    """Draw where a photo's best tags come from.

    MODEL is a bundle (`default`, or a file of `lesa export`), which needs no PyTorch, or the folder of a run.

    For each photo this writes NAME.png with all tags, NAME/1.png and so on with one tag each, and NAME.json with their
    evidence and boxes. No file is replaced.

    \b
    Example:
      lesa show mine.lesa photo.jpg holiday -o shown --sheet
      lesa show mine.lesa photo.jpg --labels words.txt --top 3
      lesa show runs/flickr8k photo.jpg holiday/*.jpg -o shown
    """
    names = find_photos(photos)
    tagger = _open_tagger(model, vectors, regions)
    from lesa.pictures import show_tags

    chosen = tagger.labels(read_lines(labels) if labels else None)
    note_composed(chosen.composed)
    failed = 0
    for photo, picture in show_tags(tagger, names, out, chosen, top, sheet):
        failed += isinstance(picture, LesaError)
        click.echo(f"{photo}: {picture}", err=isinstance(picture, LesaError))
    if failed == len(names):
        raise LesaError("none of the photos could be shown")


def _open_tagger(model: Path, vectors: tuple[str, ...], regions: Path | None) -> "Tagger":
    """Open a run with PyTorch, or a bundle without it."""
    if (model / "run.json").exists():
        from lesa.learn.run import open_run
        from lesa.learn.show import run_tagger

        return run_tagger(open_run(model), regions, vectors)
    if regions:
        raise LesaError(f"{model} is not a run: --regions is for a run")
    one_thread()
    from lesa.tagger import Tagger

    return Tagger(model, vectors)
