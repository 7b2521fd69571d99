"""Make the data of `lesa demo`, which is part of the package, from a prepared data set and its 7 x 7 regions.

    lesa prepare captions flickr8k/Flickr8k.token.txt --seen-words TagList1k.txt --unseen-words Concepts81.txt \\
        -o prepared/flickr8k
    lesa extract flickr8k/Images -o regions/mobilenet-v2-7x7 --backbone hf:google/mobilenet_v2_1.0_224 --fit squash
    python tools/make_demo_data.py prepared/flickr8k regions/mobilenet-v2-7x7

The result depends only on the input. It contains no photo and no text of a caption.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesa.files import replacing, write_json, write_text
from lesa.learn.datasets.dataset import Dataset, Split, Targets, counts, read_dataset, write_dataset
from lesa.learn.regions.projection import FILE, project
from lesa.learn.regions.store import RegionStore
from lesa.vectors import read_vectors, write_table

OUT = Path(__file__).resolve().parents[1] / "src" / "lesa" / "learn" / "datasets" / "demo_data"
PHOTOS = {"train": 2600, "validation": 394, "test": 1206}
SIZE = 96
ENCODER = "all-MiniLM-L6-v2"
BACKBONE = "hf:google/mobilenet_v2_1.0_224"
# The largest numbers are clipped; this is their share. The clipping makes the steps half as large.
CLIPPED = 1e-5
README = """\
# The embedded data of `lesa demo`

Computed features and label ids of {photos} photos of Flickr8k (Hodosh, Young and Hockenmaier, JAIR 2013); no photo and
no caption text.

| file | what | MB |
|---|---|---|
{files}

* **Regions.** The last map of MobileNetV2 1.0 (ImageNet, 224 x 224; {grid[0]} x {grid[1]} x {source}), projected to
  {size} principal components that were fitted on {learned} training photos ({kept:.0%} of the variance). 8 bits per
  number, with one step of {step:.4g} for all; {clipped:.4%} of the numbers are clipped at {limit:.4g}.
* **Labels.** {seen} seen and {unseen} unseen labels by the rules of `lesa prepare captions`. Photos: {splits}:
  in each split of the whole benchmark, the photos whose names have the lowest SHA-256. All labels are included.
* **Vectors.** {encoder}, {numbers} numbers per label.
* **Licences.** These numbers are the project's own, under its licence. They were computed with the weights of
  MobileNetV2 (TensorFlow models, Apache-2.0) and of all-MiniLM-L6-v2 (Apache-2.0), from photos that may be used for
  research and are not included.

`tools/make_demo_data.py` made it and holds the commands.
"""


def main() -> None:
    """Write the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="prepared data set")
    parser.add_argument("regions", type=Path, help="region store of all its photos, not projected")
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    given = parser.parse_args()
    whole = read_dataset(given.dataset)
    data = smaller(whole)
    with tempfile.TemporaryDirectory() as folder:
        regions = Path(folder) / "regions"
        project(RegionStore.open(given.regions), regions, SIZE, whole.split("train").photos)
        description = write_regions(RegionStore.open(regions), data, given.out)
        with replacing(given.out / FILE) as temporary:
            temporary.write_bytes((regions / FILE).read_bytes())
    write_dataset(data, given.out)
    names = data.vocabulary.names
    write_table(given.out / "vectors.safetensors", names, read_vectors(f"text:{ENCODER}", names))
    write_readme(data, description, given.out)
    for name, row in counts(data).items():
        print(name, row)
    print(f"{sum(path.stat().st_size for path in given.out.iterdir()) / 1e6:.2f} MB in {given.out}")


def smaller(data: Dataset) -> Dataset:
    """Return the data set with fewer photos and all labels."""
    return Dataset(
        name=f"{data.name}-demo",
        vocabulary=data.vocabulary,
        splits={name: first_photos(data.split(name), count) for name, count in PHOTOS.items()},
        source={**data.source, "photos_of_splits": "lowest SHA-256 of the name"},
    )


def first_photos(split: Split, count: int) -> Split:
    """Return the `count` photos of a split whose names have the lowest SHA-256, in that order."""
    order = sorted(range(len(split.photos)), key=lambda n: hashlib.sha256(split.photos[n].encode()).digest())[:count]
    return Split(tuple(split.photos[n] for n in order), Targets(split.targets.entries[order], split.targets.rest))


def write_regions(store: RegionStore, data: Dataset, out: Path) -> dict[str, Any]:
    """Write the photos' regions as 8-bit codes, and their description, which is returned."""
    names = [photo for split in data.splits.values() for photo in split.photos]
    codes_NRD, step, clipped = quantise(store.read(store.index(names)))
    # In the order of components: numbers of equal spread are together, and the file becomes a tenth smaller.
    codes_DNR = np.ascontiguousarray(codes_NRD.transpose(2, 0, 1))
    with replacing(out / "regions.npz") as temporary:
        np.savez_compressed(temporary, codes=codes_DNR, step=np.float32(step))
    projection = {
        **store.manifest["projection"],
        "bits": 8,
        "step": step,
        "clipped": clipped,
        "codes_sha256": hashlib.sha256(codes_DNR.tobytes()).hexdigest(),
    }
    backbone = {**store.manifest["backbone"], "spec": BACKBONE}
    description = {
        "backbone": backbone,
        "preprocessing": store.manifest["preprocessing"],
        "grid": store.manifest["grid"],
        "size": store.size,
        "projection": projection,
    }
    write_json(out / "regions.json", description)
    return description


def quantise(regions: NDArray[np.float32]) -> tuple[NDArray[np.int8], float, float]:
    """Return 8-bit codes, the one step that they are multiplied by, and the share of clipped numbers.

    With one step for all components, all have the same error, and weak components have small codes.
    """
    limit = float(np.quantile(np.abs(regions), 1 - CLIPPED))
    step = float(np.float32(limit / 127))
    codes = np.clip(np.rint(regions / step), -127, 127).astype(np.int8)
    return codes, step, float((np.abs(regions) > limit).mean())


def write_readme(data: Dataset, description: dict[str, Any], out: Path) -> None:
    """Write the description of the data."""
    contents = {
        "regions.npz": "`codes` (features, photos, regions; signed 8 bits) and `step`; photos as in `dataset.json`",
        "regions.json": "backbone, preprocessing, grid and projection",
        "projection.safetensors": "mean and principal components",
        "dataset.json": "labels, photo names by split",
        "targets.safetensors": "the photos' labels",
        "vectors.safetensors": "the labels' vectors",
    }
    projection = description["projection"]
    text = README.format(
        photos=sum(len(split.photos) for split in data.splits.values()),
        files="\n".join(
            f"| `{name}` | {text} | {(out / name).stat().st_size / 1e6:.2f} |" for name, text in contents.items()
        ),
        grid=description["grid"],
        source=projection["source_size"],
        learned=projection["photos"],
        size=description["size"],
        kept=projection["variance_kept"],
        step=projection["step"],
        clipped=projection["clipped"],
        limit=127 * projection["step"],
        seen=len(data.vocabulary.seen),
        unseen=len(data.vocabulary.unseen),
        splits=", ".join(f"{len(split.photos)} {name}" for name, split in data.splits.items()),
        encoder=ENCODER,
        numbers=read_vectors(str(out / "vectors.safetensors"), data.vocabulary.names[:1]).shape[1],
    )
    write_text(out / "README.md", text)


if __name__ == "__main__":
    main()
