"""Photos -> a region store, by a backbone; resumed where it stopped."""

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
from lesa.learn.regions.graphs import run_on
from lesa.learn.regions.store import StoreWriter


@dataclass(frozen=True)
class Summary:
    """What a store holds after `extract`."""

    done: int
    """Photos with regions."""
    failed: int
    """Photos that could not be read; `failed.jsonl` says why."""


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
    """Write the regions of photos into a store; go on where an interrupted or older run of the same backbone stopped.

    A photo that cannot be read is listed in `failed.jsonl` and skipped.

    Args:
        photo_root: the folder that the names are relative to.
        names: the photos; rows of the store have this order.
        folder: the store.
        backbone: what makes regions.
        device: `cpu` or `cuda`.
        batch_size: photos that the backbone takes at once.
        progress: called after each batch with photos done, photos in all, photos that failed.

    Raises:
        LesaError: the store holds something else, or a feature does not fit half precision.
    """
    with StoreWriter(folder, _describe(backbone)) as writer:
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
    """Return what a store's manifest says about its rows."""
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
    }


def _check_name(name: str) -> None:
    # Files whose names are not UTF-8 reach Python with surrogates, which no text file can hold.
    if "\n" in name or any("\ud800" <= sign <= "\udfff" for sign in name):
        raise LesaError(f"{name!r} cannot stand on a line of text: rename the file")
