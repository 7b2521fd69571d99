"""`lesa tag`: photos -> tags by a bundle, without PyTorch."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import (
    PATH,
    bundle_option,
    find_photos,
    labels_option,
    note_composed,
    one_thread,
    printable,
    vectors_option,
)
from lesa.errors import LesaError
from lesa.files import read_lines, replacing
from lesa.progress import progress_bar
from lesa.tag_files import Write, csv_writer, lines_writer, resume

if TYPE_CHECKING:
    from lesa.calibration import Calibration
    from lesa.codes import Codes
    from lesa.tagger import Labels, Tag, Tagger


@click.command()
@click.argument("paths", nargs=-1, required=True)
@bundle_option
@labels_option
@vectors_option
@click.option("--top", type=click.IntRange(min=1), help="Most tags per photo; default: see above.")
@click.option("--threshold", type=float, help="Least probability of a tag, 0 to 1; least score if not calibrated.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "csv"]),
    help="Without this option: `table` on the screen, `jsonl` (JSON Lines) in a file.",
)
@click.option("-o", "--out", type=PATH, help="File to write; an unfinished JSON Lines file is continued.")
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
    """Tag photos: files, folders, patterns such as '*.jpg', or `-` for a list of files on standard input.

    Broken photos are reported on standard error, and the other photos are tagged. After an interruption, the same
    command continues a JSON Lines file.

    A calibrated bundle, such as the one in the package, gives probabilities. Without --top and --threshold, its own
    labels are tags if their probability reaches the threshold in the bundle. Otherwise there are 5 tags per photo.

    \b
    Example:
      lesa tag holiday photo.jpg --top 3
      lesa tag archive --bundle mine.lesa --labels words.txt --threshold 2 -o tags.jsonl
    """
    one_thread()
    from lesa.tagger import Tagger

    form = form or ("jsonl" if out else "table")
    if out and form == "table":
        raise LesaError("a table is for the screen only: give --format jsonl or csv for a file")
    photos = find_photos(paths)
    tagger = Tagger(bundle, vectors)
    chosen = tagger.labels(read_lines(labels) if labels else None)
    note_composed(chosen.composed)
    tagger.check_threshold(threshold)
    calibration = tagger.bundle.calibration
    top, threshold = tagger.limits(chosen, top, threshold)
    settings = _fingerprint(tagger.bundle.fingerprint, chosen, top, threshold, calibration)
    with _writer(form, out, settings, max(map(len, photos)), calibrated=bool(calibration)) as (write, done):
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
    """Tag and write photos one by one. Report broken photos on standard error and return their number."""
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


def _fingerprint(
    bundle: str, labels: "Labels", top: int | None, threshold: float | None, calibration: "Calibration | None"
) -> str:
    """Return a short hash of all settings that decide the tags of a photo."""
    decisive = [bundle, labels.names, labels.composed, top, threshold, calibration and calibration.to_dict()]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


@contextmanager
def _writer(
    form: str, out: Path | None, settings: str, width: int, calibrated: bool = False
) -> Iterator[tuple[Write, set[str]]]:
    """Yield a function that writes the tags of one photo, and the photos that are already in the file."""
    if form == "jsonl" and out:
        done = resume(out, settings)
        with out.open("a", encoding="ascii", newline="\n") as file:
            yield lines_writer(file, settings), done
    elif form == "jsonl":
        yield lines_writer(sys.stdout, settings), set()
    elif form == "csv":
        # In Python, file names that are not UTF-8 contain surrogates.
        with (
            replacing(out) if out else nullcontext("-") as path,
            click.open_file(path, "w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            yield csv_writer(file, calibrated), set()
    elif form == "table":
        yield _table_writer(width), set()
    else:
        raise LesaError(f"there is no writer for the format {form!r}")


def _table_writer(width: int) -> Write:
    """Return a writer for the screen: one line per photo with its name, padded to `width`, and its tags."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        click.echo(f"{printable(photo):<{width}}  " + "  ".join(f"{tag.label} {tag.text}" for tag in tags))

    return write
