"""`lesa tag`: photos -> tags by a bundle, without PyTorch; `lesa export`: a trained run -> a bundle."""

import csv
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from lesa.errors import LesaError
from lesa.files import read_lines, replacing
from lesa.progress import progress_bar

if TYPE_CHECKING:
    from lesa.calibration import Calibration
    from lesa.tagger import Codes, Labels, Tag, Tagger

PATH = click.Path(path_type=Path)
DEFAULT_TOP = 5
bundle_option = click.option(
    "--bundle",
    type=PATH,
    default=Path("default"),
    help="What `lesa export` wrote, or `default`, the one in the package.",
)
COLUMNS = ("photo", "label", "score", "seen", "left", "top", "right", "bottom")
"""Of the CSV format: a row a tag; the box is in the upright photo's pixels. A calibrated bundle adds `probability`."""

START = b'{"photo": '
"""How every line of a JSON Lines file starts."""
Write = Callable[[str, "Codes", "Sequence[Tag]"], None]
"""Takes a photo, its codes and its tags."""


@click.command()
@click.argument("paths", nargs=-1, required=True)
@bundle_option
@click.option("--labels", type=PATH, help="Any words, one label a line; the bundle's own labels if not given.")
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
    labels are tags if they are at least as probable as the threshold it carries. Else there are five tags a photo.

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
    if top is None and threshold is None:
        # The threshold was found for the bundle's own labels.
        top, threshold = (None, calibration.threshold) if calibration and not labels else (DEFAULT_TOP, None)
    settings = fingerprint(tagger.bundle.fingerprint, chosen, top, threshold, calibration)
    with writer(form, out, settings, max(map(len, photos)), calibrated=bool(calibration)) as (write, done):
        todo = [photo for photo in photos if photo not in done]
        failed = tag_photos(
            tagger, todo, lambda codes: tagger.rank(codes, chosen, top, threshold), write, bar=bool(out)
        )
    if out:
        skipped = len(photos) - len(todo)
        click.echo(f"{len(todo) - failed} photos tagged in {out}, {skipped} were there already, {failed} failed")
    if failed == len(photos):
        raise LesaError("none of the photos could be read")


def note_composed(names: Sequence[str]) -> None:
    """Say on standard error which labels' vectors are composed, if any."""
    if names:
        few = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        click.echo(f"lesa: put together from their words' vectors: {few}; --vectors gives exact ones", err=True)


def tag_photos(
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


def find_photos(paths: Sequence[str]) -> list[str]:
    """Return the photos that paths mean, each once: files, folders (all photos below), patterns, `-` (a list).

    Raises:
        LesaError: there is no such file and no photo that fits the pattern, or a folder holds no photo.
    """
    photos = [photo for path in paths for photo in _photos_of(path)]
    if not photos:
        raise LesaError("there is no photo to tag: the list on standard input is empty")
    return list(dict.fromkeys(photos))


def _photos_of(path: str) -> list[str]:
    from lesa.images import SUFFIXES, list_photos

    if path == "-":
        return [line for line in (line.rstrip("\r\n") for line in sys.stdin) if line]
    if Path(path).is_dir():
        return [str(Path(path) / name) for name in list_photos(path)]
    if Path(path).exists() or not glob.has_magic(path):
        # A file that does not exist is reported in its turn, as a broken one is.
        return [path]
    # Path.glob takes relative patterns only.
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    found = [each for each in matches if Path(each).suffix.lower() in SUFFIXES]
    if not found:
        raise LesaError(f"no photo fits the pattern {path!r}")
    return found


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
        yield table_writer(width), set()


def resume(out: Path, settings: str) -> set[str]:
    """Return the photos that a JSON Lines file holds; a last line that was cut off is dropped.

    Raises:
        LesaError: it is no such file, or its tags were made with other settings.
    """
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return set()
    done = set()
    with out.open("r+b") as file:
        whole = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and line[: len(START)] == START[: len(line)]:
                file.truncate(whole)
                break
            whole += len(line)
            done.add(_photo_of(line, settings, f"{out}:{number}"))
    return done


def _photo_of(line: bytes, settings: str, where: str) -> str:
    try:
        entry = json.loads(line)
        photo, found = str(entry["photo"]), entry["settings"]
    except (ValueError, KeyError, TypeError):
        raise LesaError(f"{where} is not a line that `lesa tag` wrote: give another file") from None
    if found != settings:
        raise LesaError(f"{where} was tagged with another bundle, labels, --top or --threshold: give another file")
    return photo


def lines_writer(file: IO[str], settings: str) -> Write:
    """Return a writer of JSON Lines: an object a photo, each line written whole."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        entry = {"photo": photo, "size": codes.size, "tags": [tag_entry(tag) for tag in tags], "settings": settings}
        file.write(json.dumps(entry) + "\n")
        file.flush()

    return write


def tag_entry(tag: "Tag") -> dict[str, object]:
    """Return a tag as JSON holds it; `probability` is there if the bundle is calibrated, `parents` if it has some."""
    entry: dict[str, object] = {"label": tag.label, "score": round(tag.score, 4), "seen": tag.seen, "box": tag.box}
    entry |= {} if tag.probability is None else {"probability": round(tag.probability, 4)}
    return entry | ({"parents": tag.parents} if tag.parents else {})


def csv_writer(file: IO[str], calibrated: bool = False) -> Write:
    """Return a writer of CSV: a row a tag."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*COLUMNS, *(["probability"] if calibrated else [])])

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        for tag in tags:
            probability = [] if tag.probability is None else [f"{tag.probability:.4f}"]
            rows.writerow([photo, tag.label, f"{tag.score:.4f}", int(tag.seen), *tag.box, *probability])
        file.flush()

    return write


def table_writer(width: int) -> Write:
    """Return a writer for the screen: a line a photo, its name `width` wide, each tag with its probability or score."""

    def write(photo: str, codes: "Codes", tags: "Sequence[Tag]") -> None:
        click.echo(f"{printable(photo):<{width}}  " + "  ".join(f"{tag.label} {tag.figure}" for tag in tags))

    return write


def printable(name: str) -> str:
    """Return a file name as a screen takes it: line ends, control signs and bytes that are no text are escaped."""
    return name if name.isprintable() else repr(name)[1:-1]


@click.command()
@click.argument("run", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The bundle to write: NAME.lesa.")
@click.option("--licence", help="Licence of the weights, for the model card; unknown if not given.")
@click.option("--words", type=PATH, help="Further words, one a line, whose vectors the bundle shall carry.")
@click.option("--regions", type=PATH, help="Where the run's region store is, if it moved.")
@click.option("--hierarchy", type=PATH, help="What labels are kinds of, a line each: `animal|dog` (for `lesa write`).")
@click.option("--small", is_flag=True, help="Store weights in 16 bits and label vectors in 8: about half the size.")
@click.option("--offline", is_flag=True, help="Look words up in the bundle alone; put phrases together from them.")
def export(
    run: Path,
    out: Path,
    licence: str | None,
    words: Path | None,
    regions: Path | None,
    hierarchy: Path | None,
    small: bool,
    offline: bool,
) -> None:
    """A trained run -> a bundle for `lesa tag`: one file that needs no PyTorch, checked against it.

    \b
    Example:
      lesa export runs/flickr8k -o flickr8k.lesa --licence CC0-1.0
      lesa export runs/flickr8k -o small.lesa --words words.txt --small --offline
    """
    from lesa.learn.export import export_run
    from lesa.learn.run import open_run

    further = read_lines(words) if words else ()
    paths = [line.split("|") for line in read_lines(hierarchy)] if hierarchy else []
    difference = export_run(
        open_run(run),
        out,
        licence=licence,
        words=further,
        regions=regions,
        parents={path[-1].strip(): tuple(name.strip() for name in path[:-1]) for path in paths},
        small=small,
        offline=offline,
    )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, within {difference:.0e} of PyTorch's scores' spread")
