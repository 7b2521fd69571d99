"""`lesa tag`: photos -> tags by a bundle, without PyTorch; `lesa export`: a trained run -> a bundle."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import bundle_option, find_photos, note_composed, printable
from lesa.errors import LesaError
from lesa.files import read_lines, replacing
from lesa.progress import progress_bar
from lesa.tag_files import Write, csv_writer, lines_writer, resume

if TYPE_CHECKING:
    from lesa.calibration import Calibration
    from lesa.codes import Codes
    from lesa.tagger import Labels, Tag, Tagger

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True)
@bundle_option
@click.option("--labels", type=PATH, help="Any words, one label per line; the bundle's own labels if not given.")
@click.option("--vectors", multiple=True, help="Where the bundle's source of word vectors is now. May be repeated.")
@click.option(
    "--top", type=click.IntRange(min=1), help="Tags a photo at most. Neither this nor --threshold: see below."
)
@click.option("--threshold", type=float, help="Least probability of a tag, 0 to 1; least score if not calibrated.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "csv"]),
    help="`table` on the screen, `jsonl` (JSON Lines) in a file if not given.",
)
@click.option("-o", "--out", type=PATH, help="File to write; a JSON Lines file is gone on with.")
def tag(
    paths: tuple[str, ...],
    bundle: Path,
    labels: Path | None,
    vectors: tuple[str, ...],
    top: int | None,
    threshold: float | None,
    form: str | None,
    out: Path | None,
) -> None:
    """Tags for photos: files, folders, patterns such as '*.jpg', or `-` for a list of files on standard input.

    Broken photos are reported on standard error and the rest is done. A JSON Lines file that was interrupted is gone
    on with by the same command.

    A calibrated bundle, such as the one in the package, gives probabilities; without --top and --threshold its own
    labels are tags if they are at least as probable as the threshold it carries. Else there are five tags per photo.

    \b
    Example:
      lesa tag holiday photo.jpg --top 3
      lesa tag archive --bundle mine.lesa --labels words.txt --threshold 2 -o tags.jsonl
    """
    # Before NumPy: its products are small here, and its threads would fight for cores with the graph and the decoders.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from lesa.tagger import Tagger

    form = form or ("jsonl" if out else "table")
    if out and form == "table":
        raise LesaError("a table is for the screen: give --format jsonl or csv for a file")
    photos = find_photos(paths)
    tagger = Tagger(bundle, vectors)
    chosen = tagger.labels(read_lines(labels) if labels else None)
    note_composed(chosen.composed)
    tagger.check_threshold(threshold)
    calibration = tagger.bundle.calibration
    top, threshold = tagger.limits(chosen, top, threshold)
    settings = fingerprint(tagger.bundle.fingerprint, chosen, top, threshold, calibration)
    with writer(form, out, settings, max(map(len, photos)), calibrated=bool(calibration)) as (write, done):
        todo = [photo for photo in photos if photo not in done]
        failed = _tag_photos(
            tagger, todo, lambda codes: tagger.rank(codes, chosen, top, threshold), write, bar=bool(out)
        )
    if out:
        skipped = len(photos) - len(todo)
        click.echo(f"{len(todo) - failed} photos tagged in {out}, {skipped} were there already, {failed} failed")
    if failed == len(photos):
        raise LesaError("none of the photos could be read")


def _tag_photos(
    tagger: "Tagger", photos: Sequence[str], rank: "Callable[[Codes], list[Tag]]", write: Write, bar: bool
) -> int:
    """Tag and write photos one by one; report broken ones on standard error and return how many there were."""
    failed = 0
    with progress_bar("tag", len(photos)) if bar else nullcontext() as advance:
        for done, (photo, codes) in enumerate(tagger.stream(photos), start=1):
            if isinstance(codes, LesaError):
                failed += 1
                click.echo(f"lesa: {codes}", err=True)
            else:
                write(str(photo), codes, rank(codes))
            if advance:
                advance(done)
    return failed


def fingerprint(
    bundle: str, labels: "Labels", top: int | None, threshold: float | None, calibration: "Calibration | None"
) -> str:
    """Return a short hash of all that decides a photo's tags."""
    decisive = [bundle, labels.names, labels.composed, top, threshold, calibration and calibration.to_dict()]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


@contextmanager
def writer(
    form: str, out: Path | None, settings: str, width: int, calibrated: bool = False
) -> Iterator[tuple[Write, set[str]]]:
    """Yield a function that writes one photo's tags, and the photos that the file holds already."""
    if form == "jsonl" and out:
        done = resume(out, settings)
        with out.open("a", encoding="ascii", newline="\n") as file:
            yield lines_writer(file, settings), done
    elif form == "jsonl":
        yield lines_writer(sys.stdout, settings), set()
    elif form == "csv":
        # File names that are not UTF-8 reach Python with surrogates.
        with (
            replacing(out) if out else nullcontext("-") as path,
            click.open_file(path, "w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            yield csv_writer(file, calibrated), set()
    else:
        yield _table_writer(width), set()


def _table_writer(width: int) -> Write:
    """Return a writer for the screen: one line per photo, its name `width` wide, then its tags."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        click.echo(f"{printable(photo):<{width}}  " + "  ".join(f"{tag.label} {tag.text}" for tag in tags))

    return write
