"""Photos -> a region store, by a backbone. An unfinished store is resumed."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.errors import LesaError
from lesa.images import decode_ahead, open_photo, to_pixels
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.classes import Classes, describe_classes, write_classes
from lesa.learn.regions.graphs import run_on
from lesa.learn.regions.store import StoreWriter


@dataclass(frozen=True)
class Summary:
    """The number of photos in a store after `extract`."""

    done: int
    """Number of photos with regions."""
    failed: int
    """Number of photos that could not be read; `failed.jsonl` has the reasons."""


def extract(
    photo_root: Path,
    names: Sequence[str],
    folder: Path,
    backbone: Backbone,
    *,
    device: str = "cpu",
    batch_size: int = 8,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> Summary:
    """Write the regions of photos into a store. An unfinished store of the same backbone is resumed.

    A finished store takes new photos. A photo that cannot be read is listed in `failed.jsonl` and skipped.

    Args:
        photo_root: the folder that the names are relative to.
        names: the photos, in the order of the store's rows.
        folder: the store.
        backbone: the network that makes regions.
        device: `cpu` or `cuda`.
        batch_size: number of photos per batch.
        progress: called after each batch with the numbers of photos done, of all photos, and of failed photos.

    Raises:
        LesaError: the store has regions of another kind, or a feature is too large for half precision.
    """
    with StoreWriter(folder, _describe(backbone)) as writer:
        if isinstance(backbone.classes, Classes):
            write_classes(folder, backbone.classes)
        todo = [name for name in dict.fromkeys(names) if name not in writer]
        if todo:
            run = run_on(backbone, device)

        def decode(name: str) -> NDArray[np.float32]:
            _check_name(name)
            return to_pixels(open_photo(photo_root / name), backbone.preprocessing)

        photos = decode_ahead(todo, decode, ahead=4 * batch_size)
        done = len(names) - len(todo)
        while batch := list(itertools.islice(photos, batch_size)):
            for name, problem in batch:
                if isinstance(problem, LesaError):
                    writer.fail(name, str(problem))
            good = [(name, pixels) for name, pixels in batch if not isinstance(pixels, LesaError)]
            if good:
                writer.append([name for name, _ in good], run(np.stack([pixels for _, pixels in good])))
            done += len(batch)
            progress(done, len(names), writer.failures)
    return Summary(writer.rows, writer.failures)


def _describe(backbone: Backbone) -> dict[str, Any]:
    """Return the part of a store's manifest that describes its rows."""
    return {
        "backbone": {
            "spec": backbone.spec,
            "options": backbone.options,
            "weights": backbone.weights,
            "fingerprint": backbone.fingerprint(),
        },
        "preprocessing": backbone.preprocessing.to_dict(),
        "grid": backbone.grid,
        "size": backbone.size,
        "projection": None,
        "classes": describe_classes(backbone.classes),
    }


def _check_name(name: str) -> None:
    # In Python, file names that are not UTF-8 contain surrogates, which no text file can hold.
    if "\n" in name or any("\ud800" <= sign <= "\udfff" for sign in name):
        raise LesaError(f"{name!r} cannot be written on one line of text: rename the file")
