"""`lesa prepare`: one command per adapter, official or own label files -> a data set folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lesa.cli.tables import print_table
from lesa.progress import progress_bar

PATH = click.Path(path_type=Path)
SHOWN = 5
"""Missing photos that are printed; all of them stand in dataset.json."""

Command = TypeVar("Command", bound=Callable[..., Any])

OUT = click.option("-o", "--out", type=PATH, required=True, help="Folder to write.")


def _photo_options(command: Command) -> Command:
    """Add the options of adapters whose photos may be elsewhere, or not at hand."""
    keep = "With --photos: keep those that are not there; else they are left out and listed."
    command = click.option("--keep-missing", is_flag=True, help=keep)(command)
    return click.option("--photos", type=PATH, help="Folder of the photos; labels only if not given.")(command)


@click.group()
def prepare() -> None:
    """Make a data set folder (vocabulary, splits, sparse targets) from label files."""


@prepare.command("nus-wide")
@click.argument("root", type=PATH)
@click.option(
    "--kind",
    type=click.Choice(["standard", "clean", "multi-label"]),
    default="standard",
    help="925 seen / 81 unseen; the same without singular and plural twins; or the 81 as seen labels alone.",
)
@_photo_options
@OUT
def nus_wide(root: Path, kind: str, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """NUS-WIDE from its official text files: ROOT holds ImageList, NUS_WID_Tags, Groundtruth, ConceptsList.

    \b
    Example:
      lesa prepare nus-wide NUS-WIDE --photos NUS-WIDE/Flickr -o prepared/nus-wide
    """
    from lesa.learn.datasets.nus_wide import prepare_nus_wide

    _save_dataset(prepare_nus_wide(root, kind, photos, keep_missing), out)


@prepare.command("open-images")
@click.argument("root", type=PATH)
@_photo_options
@OUT
def open_images(root: Path, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """Open Images V4 (2018_04) or later: human-verified labels, 7,186 seen and 400 unseen.

    What was read of the large files is kept in OUT/read, so that the same command goes on where it stopped.

    \b
    Example:
      lesa prepare open-images OpenImages -o prepared/open-images
    """
    from lesa.learn.datasets.open_images import prepare_open_images

    with progress_bar("read", None) as advance:
        dataset = prepare_open_images(root, out / "read", photos, keep_missing, advance)
    _save_dataset(dataset, out)


@prepare.command("coco")
@click.argument("root", type=PATH)
@click.option(
    "--kind",
    type=click.Choice(["65/15", "48/17", "80"]),
    default="65/15",
    help="Seen / unseen labels; 80: all seen, none unseen.",
)
@_photo_options
@OUT
def coco(root: Path, kind: str, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """COCO from its instances JSON, of 2014 or 2017.

    \b
    Example:
      lesa prepare coco coco --kind 48/17 --photos coco -o prepared/coco-48-17
    """
    from lesa.learn.datasets.coco import prepare_coco

    _save_dataset(prepare_coco(root, kind, photos, keep_missing), out)


@prepare.command("voc")
@click.argument("root", type=PATH)
@click.option("--unseen", multiple=True, metavar="LABEL", help="A label that is to be unseen. May be repeated.")
@_photo_options
@OUT
def voc(root: Path, unseen: tuple[str, ...], photos: Path | None, keep_missing: bool, out: Path) -> None:
    """Pascal VOC from its XML: ROOT is one year's folder.

    \b
    Example:
      lesa prepare voc VOCdevkit/VOC2007 --unseen cow --unseen sofa -o prepared/voc2007
    """
    from lesa.learn.datasets.voc import prepare_voc

    _save_dataset(prepare_voc(root, unseen, photos, keep_missing), out)


@prepare.command("captions")
@click.argument("captions", type=PATH)
@click.option("--seen-words", type=PATH, required=True, help="List of words that become seen labels, one per line.")
@click.option("--unseen-words", type=PATH, required=True, help="List of words that become unseen labels.")
@click.option("--clean", is_flag=True, help="Leave out seen labels that are a singular or plural of an unseen one.")
@OUT
def captioned(captions: Path, seen_words: Path, unseen_words: Path, clean: bool, out: Path) -> None:
    """Captioned photos: noisy seen labels from two captions, agreed unseen labels from all.

    CAPTIONS is Flickr8k's own file, a line `name#k<TAB>caption`.

    \b
    Example:
      lesa prepare captions Flickr8k.token.txt --seen-words TagList1k.txt \\
        --unseen-words Concepts81.txt -o prepared/flickr8k
    """
    from lesa.learn.datasets.captions import prepare_captions

    _save_dataset(prepare_captions(captions, seen_words, unseen_words, clean=clean), out)


@prepare.command("folder")
@click.argument("photos", type=PATH)
@click.option("--labels", type=PATH, required=True, help="CSV or JSON Lines with the photos' labels.")
@click.option("--seen", type=PATH, required=True, help="List of the seen labels, one per line.")
@click.option("--unseen", type=PATH, required=True, help="List of the unseen labels, one per line.")
@OUT
def folder(photos: Path, labels: Path, seen: Path, unseen: Path, out: Path) -> None:
    """Own photos with own labels.

    \b
    Example:
      lesa prepare folder photos --labels labels.csv --seen seen.txt --unseen unseen.txt -o prepared/mine
    """
    from lesa.learn.datasets.folder import prepare_folder

    _save_dataset(prepare_folder(photos, labels, seen, unseen), out)


def _save_dataset(dataset: Any, out: Path) -> None:
    """Write a prepared data set; print its counts, how they differ from the official ones, and missing photos."""
    from lesa.learn.datasets.dataset import counts, write_dataset

    write_dataset(dataset, out)
    counted = counts(dataset)
    rows = [(name, *map(str, row.values())) for name, row in counted.items()]
    header = ["split", *next(iter(counted.values()))]
    print_table(f"{dataset.name} -> {out}", header, rows)
    for difference in dataset.source.get("differences", ()):
        click.echo(f"differs: {difference}")
    if missing := dataset.source.get("missing_photos"):
        listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        click.echo(f"{len(missing):,} photos are not on disk (all in {out / 'dataset.json'}): {listed}")
