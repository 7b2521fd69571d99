"""The embedded data -> an ordinary data set, region store and table of vectors.

`demo_data/README.md` describes the embedded data; `tools/make_demo_data.py` makes them.
"""

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np

from lesa.files import replacing
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.regions.store import StoreWriter

PACKED = files("lesa.learn.datasets") / "demo_data"
# Packed files that are copied unchanged -> their paths.
PLACES = {
    "targets.safetensors": "dataset/targets.safetensors",
    "dataset.json": "dataset/dataset.json",
    "projection.safetensors": "regions/projection.safetensors",
    "vectors.safetensors": "vectors.safetensors",
}
PHOTOS = 256


def unpack_demo(folder: Path | str) -> None:
    """Write the embedded data: `dataset/`, `regions/` and `vectors.safetensors` in `folder`.

    A complete folder is not changed. An incomplete folder of an interrupted call is completed.

    Raises:
        LesaError: the folder contains the regions of another version.
    """
    folder = Path(folder)
    manifest = json.loads((PACKED / "regions.json").read_text(encoding="utf-8"))
    with StoreWriter(folder / "regions", manifest) as writer:
        for name, place in PLACES.items():
            with replacing(folder / place) as temporary:
                temporary.write_bytes((PACKED / name).read_bytes())
        splits = read_dataset(folder / "dataset").splits.values()
        _unpack_regions(writer, [photo for split in splits for photo in split.photos])


def _unpack_regions(writer: StoreWriter, names: list[str]) -> None:
    """Write the region codes of the photos that are not in the store yet. `names` are all photos, in their order."""
    with np.load(io.BytesIO((PACKED / "regions.npz").read_bytes()), allow_pickle=False) as packed:
        codes_DNR, step = packed["codes"], packed["step"]
    for start in range(writer.rows, len(names), PHOTOS):
        codes_BRD = np.ascontiguousarray(codes_DNR[:, start : start + PHOTOS].transpose(1, 2, 0))
        writer.append(names[start : start + PHOTOS], codes_BRD * step)
