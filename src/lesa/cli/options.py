"""Options that several commands share, each declared once, and functions that read their values."""

import glob
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click

from lesa.errors import LesaError
from lesa.evaluation.rules import RULES

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Adds an option to a command."""

PATH = click.Path(path_type=Path)

bundle_option = click.option(
    "--bundle",
    type=PATH,
    default=Path("default"),
    help="A bundle of `lesa export`, or `default`: the bundle in the package.",
)
vectors_option = click.option(
    "--vectors", multiple=True, help="Where the source of word vectors is, if it was moved. May be repeated."
)
labels_option = click.option(
    "--labels", type=PATH, help="File of labels (any words), one per line; the bundle's own labels if not given."
)
regions_option = click.option("--regions", type=PATH, help="Where the run's region store is, if it was moved.")
rules_option = click.option(
    "--rules",
    multiple=True,
    default=["lesa"],
    help=f"Metric rules: {', '.join(RULES)} or all. May be repeated.",
)
k_option = click.option(
    "-k", "--k", "ks", multiple=True, type=int, default=[3, 5], help="K of P, R and F1. May be repeated."
)
device_option = click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="`cpu` or `cuda`.")
jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1), default=1, help="Number of runs at the same time; they share the cores."
)
seeds_option = click.option("--seeds", type=click.IntRange(min=1), help="Number of seeds, counted from 0.")


def set_option(example: str) -> Decorator:
    """Return the option `--set`; its help text contains the example."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Change a setting: {example}. May be repeated."
    )


def out_option(text: str) -> Decorator:
    """Return the required option `--out` with its help text."""
    return click.option("-o", "--out", type=PATH, required=True, help=text)


def one_thread() -> None:
    """Let NumPy use one thread, unless the user chose otherwise. Call this before the first import of NumPy."""
    # NumPy's products are small here. More threads would take cores from the graph and the decoders.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def all_rules(names: Sequence[str]) -> Sequence[str]:
    """Return the names of metric rules; `all` becomes the names of all rules."""
    return tuple(RULES) if "all" in names else names


def note_composed(names: Sequence[str]) -> None:
    """Name the labels whose vectors are composed on standard error, if there are any."""
    if names:
        few = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        click.echo(f"lesa: put together from their words' vectors: {few}; --vectors gives exact ones", err=True)


def find_photos(paths: Sequence[str]) -> list[str]:
    """Return the photos of all paths, each once. A path is a file, a folder (all photos below it), a pattern, or `-`.

    `-` reads a list of files from standard input, one per line.

    Raises:
        LesaError: no photo fits a pattern, a folder contains no photo, or the list is empty.
    """
    photos = [photo for path in paths for photo in _photos_of(path)]
    if not photos:
        raise LesaError("there is no photo: the list on standard input is empty")
    return list(dict.fromkeys(photos))


def _photos_of(path: str) -> list[str]:
    from lesa.images import SUFFIXES, list_photos

    if path == "-":
        return [line for line in (line.rstrip("\r\n") for line in sys.stdin) if line]
    if Path(path).is_dir():
        return [str(Path(path) / name) for name in list_photos(path)]
    if Path(path).exists() or not glob.has_magic(path):
        # A file that does not exist is reported later, as a broken photo is.
        return [path]
    # Path.glob accepts only relative patterns.
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    found = [each for each in matches if Path(each).suffix.lower() in SUFFIXES]
    if not found:
        raise LesaError(f"no photo fits the pattern {path!r}: correct it, or name files or folders")
    return found


def printable(name: str) -> str:
    """Return a file name for the screen: line ends, control characters and bytes that are not text are escaped."""
    return name if name.isprintable() else repr(name)[1:-1]
