"""Options that several commands share, each declared once, and how their values are read."""

import glob
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lesa.errors import LesaError

PATH = click.Path(path_type=Path)
RULES_OPTION = click.option(
    "--rules",
    multiple=True,
    default=["lesa"],
    help="Metric rules: lesa, biam_oi, miil, openimages, sklearn or all. May be repeated.",
)
K_OPTION = click.option(
    "-k", "--k", "ks", multiple=True, type=int, default=[3, 5], help="K of P, R and F1. May be repeated."
)
JOBS_OPTION = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, help="Runs at a time; they share the cores."
)
SEEDS_OPTION = click.option("--seeds", type=click.IntRange(min=1), help="So many seeds, from 0.")


def all_rules(names: Sequence[str]) -> Sequence[str]:
    """Return the names of metric rules, `all` written out."""
    from lesa.evaluation.rules import RULES

    return tuple(RULES) if "all" in names else names


bundle_option = click.option(
    "--bundle",
    type=PATH,
    default=Path("default"),
    help="What `lesa export` wrote, or `default`, the one in the package.",
)


def note_composed(names: Sequence[str]) -> None:
    """Say on standard error which labels' vectors are composed, if any."""
    if names:
        few = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        click.echo(f"lesa: put together from their words' vectors: {few}; --vectors gives exact ones", err=True)


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


def printable(name: str) -> str:
    """Return a file name as a screen takes it: line ends, control signs and bytes that are not text are escaped."""
    return name if name.isprintable() else repr(name)[1:-1]
