"""`lesa prepare`: label files, official or own -> a data set folder. One command per adapter."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lesa.cli.options import PATH, out_option
from lesa.cli.tables import print_table
from lesa.progress import progress_bar

if TYPE_CHECKING:
    from lesa.learn.datasets.dataset import Dataset

SHOWN = 5
"""Number of missing photos that are printed; dataset.json has all of them."""

_out_option = out_option("Folder to write.")


def _official_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and the options of all official data sets: ROOT, --photos, --keep-missing, --out."""
    keep = "With --photos: keep photos that are not in the folder; else they are left out and listed."
    command = click.option("--keep-missing", is_flag=True, help=keep)(_out_option(command))
    command = click.option("--photos", type=PATH, help="Folder of the photos; labels only if not given.")(command)
    return click.argument("root", type=PATH)(command)


@click.group()
def prepare() -> None:
    """Make a data set folder (vocabulary, splits, sparse targets) from label files."""


@prepare.command("nus-wide")
@click.option(
    "--kind",
    type=click.Choice(["standard", "clean", "multi-label"]),
    default="standard",
    help="925 seen / 81 unseen; the same without singular and plural twins; or only the 81, as seen labels.",
)
@_official_options
def nus_wide(root: Path, kind: str, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """NUS-WIDE from its official text files: ROOT contains ImageList, NUS_WID_Tags, Groundtruth, ConceptsList.

    \b
    Example:
      lesa prepare nus-wide NUS-WIDE --photos NUS-WIDE/Flickr -o prepared/nus-wide
    """
    from lesa.learn.datasets.nus_wide import nus_wide_paths, prepare_nus_wide

    _save_matched(prepare_nus_wide(root, kind), out, photos, nus_wide_paths, keep_missing)


@prepare.command("open-images")
@_official_options
def open_images(root: Path, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """Open Images V4 (2018_04) or later: labels that people verified, 7,186 seen and 400 unseen.

    The content of the large files is kept in OUT/read, so the same command continues where it stopped.

    \b
    Example:
      lesa prepare open-images OpenImages -o prepared/open-images
    """
    from lesa.learn.datasets.open_images import open_images_paths, prepare_open_images

    with progress_bar("read", None) as advance:
        dataset = prepare_open_images(root, out / "read", advance)
    _save_matched(dataset, out, photos, open_images_paths, keep_missing)


@prepare.command("coco")
@click.option(
    "--kind",
    type=click.Choice(["65/15", "48/17", "80"]),
    default="65/15",
    help="Numbers of seen / unseen labels; 80: all labels are seen.",
)
@_official_options
def coco(root: Path, kind: str, photos: Path | None, keep_missing: bool, out: Path) -> None:
    """COCO from its instances JSON, of 2014 or 2017.

    \b
    Example:
      lesa prepare coco coco --kind 48/17 --photos coco -o prepared/coco-48-17
    """
    from lesa.learn.datasets.coco import coco_paths, prepare_coco

    _save_matched(prepare_coco(root, kind), out, photos, coco_paths, keep_missing)


@prepare.command("voc")
@click.option("--unseen", multiple=True, metavar="LABEL", help="An unseen label. May be repeated.")
@_official_options
def voc(root: Path, unseen: tuple[str, ...], photos: Path | None, keep_missing: bool, out: Path) -> None:
    """Pascal VOC from its XML: ROOT is the folder of one year.

    \b
    Example:
      lesa prepare voc VOCdevkit/VOC2007 --unseen cow --unseen sofa -o prepared/voc2007
    """
    from lesa.learn.datasets.voc import prepare_voc, voc_paths

    _save_matched(prepare_voc(root, unseen), out, photos, voc_paths, keep_missing)


@prepare.command("captions")
@click.argument("captions", type=PATH)
@click.option("--seen-words", type=PATH, required=True, help="File of the words for seen labels, one per line.")
@click.option("--unseen-words", type=PATH, required=True, help="File of the words for unseen labels, one per line.")
@click.option("--clean", is_flag=True, help="Leave out seen labels that are the singular or plural of an unseen label.")
@_out_option
def captioned(captions: Path, seen_words: Path, unseen_words: Path, clean: bool, out: Path) -> None:
    """Captioned photos: noisy seen labels from two captions, unseen labels on which several captions agree.

    CAPTIONS is a file such as Flickr8k's, with lines `name#k<TAB>caption`.

    \b
    Example:
      lesa prepare captions Flickr8k.token.txt --seen-words TagList1k.txt \\
        --unseen-words Concepts81.txt -o prepared/flickr8k
    """
    from lesa.learn.datasets.captions import prepare_captions

    _save_dataset(prepare_captions(captions, seen_words, unseen_words, clean=clean), out)


@prepare.command("folder")
@click.argument("photos", type=PATH)
@click.option("--labels", type=PATH, required=True, help="CSV or JSON Lines file with the labels of the photos.")
@click.option("--seen", type=PATH, required=True, help="File of the seen labels, one per line.")
@click.option("--unseen", type=PATH, required=True, help="File of the unseen labels, one per line.")
@_out_option
def folder(photos: Path, labels: Path, seen: Path, unseen: Path, out: Path) -> None:
    """Own photos with own labels.

    \b
    Example:
      lesa prepare folder photos --labels labels.csv --seen seen.txt --unseen unseen.txt -o prepared/mine
    """
    from lesa.learn.datasets.folder import prepare_folder

    _save_dataset(prepare_folder(photos, labels, seen, unseen), out)


def _save_matched(
    dataset: "Dataset", out: Path, photos: Path | None, forms: Callable[[str], Sequence[str]], keep_missing: bool
) -> None:
    """Match a data set with the folder of its photos, if there is one, and save it.

    Args:
        dataset: the data set, with the photo names of its official lists.
        out: the folder to write.
        photos: the folder of the photos.
        forms: the adapter's function for the paths that a photo may have.
        keep_missing: whether photos that are not in the folder are kept.
    """
    from lesa.learn.datasets.dataset import match_photos

    _save_dataset(match_photos(dataset, photos, forms, keep_missing) if photos else dataset, out)


def _save_dataset(dataset: "Dataset", out: Path) -> None:
    """Write a data set; print its counts, their differences from the official counts, and missing photos."""
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
        click.echo(f"{len(missing):,} photos are not on disk (all are in {out / 'dataset.json'}): {listed}")
