"""A small collection of real photos, a backbone with random weights, and runs trained on it in a second each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lesa.files import read_json, write_json
from lesa.images import list_photos
from lesa.labels import Vocabulary
from lesa.learn.datasets.dataset import Dataset, Split, Targets, write_dataset
from lesa.learn.datasets.demo import unpack_demo
from lesa.learn.recipe import make_recipe
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.extract import extract
from lesa.learn.regions.projection import project
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, open_run
from lesa.learn.train import train

# scikit-image carries these photos in its package.
PHOTOS = {"cat": "cat", "coffee": "cup", "astronaut": "person", "rocket": "sky"}
UNSEEN, SEEN = ("animal", "table", "flag"), ("cat", "cup", "person", "sky")
OTHERS = ("moon", "red", "car", "Paris")
"""Words that are not labels and have a vector."""
SIZE = 16


def make_collection(folder: Path) -> None:
    """Write photos, word vectors, a data set and two region stores: `raw`, and `regions`, projected.

    The graph of its backbone is kept in the folder `cache` beside them.
    """
    from skimage import data

    random = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True)
    for name in PHOTOS:
        image = Image.fromarray(getattr(data, name)())
        for i in range(6):
            left, top = (int(x) for x in random.integers(0, 60, 2))
            crop = image.crop((left, top, image.width - left, image.height - top))
            crop.resize((120, 80)).save(folder / "photos" / f"{name}-{i}.jpg")
    words = [*UNSEEN, *SEEN, *OTHERS]
    table = [f"{word} {' '.join(f'{x:.4f}' for x in random.normal(size=SIZE))}" for word in words]
    (folder / "vectors.txt").write_text("\n".join(table) + "\n")
    write_dataset(make_dataset(list_photos(folder / "photos")), folder / "set")
    save_backbone(folder / "backbone")
    backbone = load_backbone(f"hf:{folder / 'backbone'}", fit="crop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESA_CACHE", str(folder / "cache"))
        extract(folder / "photos", list_photos(folder / "photos"), folder / "raw", backbone)
    store = RegionStore.open(folder / "raw")
    project(store, folder / "regions", 8, store.names)


def make_dataset(photos: list[str]) -> Dataset:
    """Four photos of each kind to train on, one to validate, one to test."""
    vocabulary = Vocabulary(UNSEEN, SEEN)

    def split(numbers: str) -> Split:
        names = [photo for photo in photos if photo[-5] in numbers]
        present = [[vocabulary.names.index(PHOTOS[name.split("-")[0]])] for name in names]
        return Split(tuple(names), Targets.from_present(present, len(vocabulary.names)))

    return Dataset("small", vocabulary, {"train": split("0123"), "validation": split("4"), "test": split("5")}, {})


def save_backbone(folder: Path, side: int = 64) -> None:
    """Save a small ResNet with random weights, for photos of `side` pixels, in the format that `hf:FOLDER` reads."""
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).eval().save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": side}, crop_pct=1.0).save_pretrained(folder)


def make_run(
    collection: Path, out: Path, recipe: str = "contrastive", regions: str = "regions", **model: object
) -> Run:
    """Train a run of three steps; `model` changes the recipe's model."""
    settings = {"dataset": str(collection / "set"), "regions": str(collection / regions), "steps": 3, "batch_size": 8}
    vectors = [str(collection / "vectors.txt")]
    train(make_recipe({"recipe": recipe, **settings, "vectors": vectors, "model": {"attentions": 3, **model}}), out)
    return open_run(out)


def make_demo_run(folder: Path, shared: Path, epochs: int) -> Run:
    """Train on the embedded region codes, with the backbone of the shared weights in the store's manifest.

    Its codes are unit vectors times a learned temperature: their length is far from one.
    """
    unpack_demo(folder)
    manifest = read_json(folder / "regions" / "manifest.json")
    manifest["backbone"]["spec"] = f"hf:{shared / 'weights' / 'mobilenet_v2_1.0_224'}"
    write_json(folder / "regions" / "manifest.json", manifest)
    places = {"dataset": str(folder / "dataset"), "regions": str(folder / "regions")}
    vectors = [str(folder / "vectors.safetensors")]
    return train(make_recipe({"recipe": "contrastive", **places, "vectors": vectors, "epochs": epochs}), folder / "run")
