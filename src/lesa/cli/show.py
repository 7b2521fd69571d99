"""`lesa show`: a run or a bundle x photos -> pictures of where each label comes from."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from lesa.cli.options import find_photos, note_composed
from lesa.errors import LesaError
from lesa.files import read_lines

PATH = click.Path(path_type=Path)
TOP = 4


@click.command()
@click.argument("model", type=PATH)
@click.argument("photos", nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, default=Path("shown"), help="Folder of the pictures.")
@click.option("--top", type=click.IntRange(min=1), default=TOP, help="Labels a photo; of a run seen and unseen ones.")
@click.option("--labels", type=PATH, help="Of a bundle: any words, one label per line; its own labels if not given.")
@click.option("--vectors", multiple=True, help="Of a bundle: where its source of word vectors is now.")
@click.option("--sheet", is_flag=True, help="Of a bundle: also sheet.png, all photos with their three best labels.")
@click.option("--regions", type=PATH, help="Of a run: where its region store is, if it moved.")
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
    """Where a photo's best labels come from: MODEL is a bundle (`default`, or what `lesa export` wrote) or a run.

    Of a bundle each tag's evidence, its box and JSON, without PyTorch: NAME.png with all tags, NAME/1.png and so on for
    each, NAME.json; nothing is replaced. Of a run one PNG per photo with the attention that each label chose.

    \b
    Example:
      lesa show mine.lesa photo.jpg holiday -o shown --sheet
      lesa show mine.lesa photo.jpg --labels words.txt --top 3
      lesa show runs/flickr8k photo.jpg holiday/*.jpg -o shown
    """
    is_run = (model / "run.json").exists()
    if is_run and (labels or vectors or sheet):
        raise LesaError(f"{model} is a run: --labels, --vectors and --sheet are for a bundle (`lesa export`)")
    if regions and not is_run:
        raise LesaError(f"{model} is not a run: --regions is for a run")
    found = find_photos(photos)
    if is_run:
        shown = _of_run(model, found, out, top, regions)
    else:
        shown = _of_bundle(model, found, out, top, labels, vectors, sheet)
    failed = 0
    for photo, picture in shown:
        failed += isinstance(picture, LesaError)
        click.echo(f"{photo}: {picture}", err=isinstance(picture, LesaError))
    if failed == len(found):
        raise LesaError("none of the photos could be shown")


def _of_run(
    run: Path, photos: list[str], out: Path, top: int, regions: Path | None
) -> Iterator[tuple[str | Path, Path | LesaError]]:
    """Return the pictures of a run; needs PyTorch."""
    from lesa.learn.run import open_run
    from lesa.learn.show import show_photos

    yield from show_photos(open_run(run), [Path(photo) for photo in photos], out, top=top, regions=regions)


def _of_bundle(
    bundle: Path, photos: list[str], out: Path, top: int, labels: Path | None, vectors: tuple[str, ...], sheet: bool
) -> Iterator[tuple[str, Path | LesaError]]:
    """Return the pictures of a bundle."""
    # Before NumPy: its threads would fight for cores with the graph and the decoders.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from lesa.pictures import show_tags
    from lesa.tagger import Tagger

    tagger = Tagger(bundle, vectors)
    chosen = tagger.labels(read_lines(labels) if labels else None)
    note_composed(chosen.composed)
    yield from show_tags(tagger, photos, out, chosen, top, sheet)
