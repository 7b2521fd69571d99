"""The classes that a backbone knows by name: found, checked, kept in the store and projected along."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from helpers.small_run import SEEN, make_collection, save_backbone
from lesa.cli.main import cli
from lesa.errors import LesaError
from lesa.images import list_photos, to_pixels
from lesa.learn.evaluate import evaluate_run
from lesa.learn.recipe import make_recipe
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.classes import CLASSES_FILE, Classes
from lesa.learn.regions.extract import extract
from lesa.learn.regions.projection import project
from lesa.learn.regions.store import RegionStore
from lesa.learn.run import Run, load_model, open_run
from lesa.learn.train import train

LABELS = {0: "background", 1: "moon, car", 2: "cup", 3: "Paris"}
NAMES = (("moon", "car"), ("cup",), ("Paris",))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet with random weights and a classifier."""
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, id2label=LABELS)).eval().save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=1.0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> RegionStore:
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESA_CACHE", str(folder / "cache"))
        extract(folder, ["a.png", "b.png", "c.png"], folder / "store", load_backbone(f"hf:{classifier}"))
    return RegionStore.open(folder / "store")


def known(store: RegionStore) -> Classes:
    classes = store.classes()
    assert isinstance(classes, Classes)
    return classes


def test_the_kept_classes_give_the_logits_of_the_whole_model(classifier: Path, store: RegionStore) -> None:
    from transformers import AutoModelForImageClassification

    classes = known(store)
    assert classes.names == NAMES
    backbone = load_backbone(f"hf:{classifier}")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pooled_BD = backbone.module(pixels).mean(dim=1).numpy()
        expected_BK = AutoModelForImageClassification.from_pretrained(classifier)(pixel_values=pixels).logits.numpy()
    np.testing.assert_allclose(pooled_BD @ classes.rows_KD.T + classes.bias_K, expected_BK[:, 1:], atol=1e-5)


def test_a_projection_with_all_components_changes_no_logit(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "projected", store.size, store.names)
    projected = RegionStore.open(tmp_path / "projected")
    rows = np.arange(len(store))
    before, after = known(store), known(projected)
    assert after.names == before.names
    logits = [
        regions.read(rows).mean(axis=1) @ each.rows_KD.T + each.bias_K
        for regions, each in ((store, before), (projected, after))
    ]
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-2)
    assert known(RegionStore.open(tmp_path / "projected")).to_bytes() == after.to_bytes()


def test_fewer_components_give_rows_of_their_size(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "projected", 4, store.names)
    assert known(RegionStore.open(tmp_path / "projected")).rows_KD.shape == (3, 4)


def test_a_backbone_without_such_classes_says_why(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    save_backbone(tmp_path / "headless")
    assert load_backbone(f"hf:{tmp_path / 'headless'}").classes == "the model has no classifier"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=32, patch_size=16, id2label=LABELS)
    ViTForImageClassification(config).eval().save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    reason = load_backbone(f"hf:{tmp_path / 'vit'}").classes
    assert reason == "the model's classifier does not act on the mean region"


def test_a_store_with_other_classes_is_refused_in_a_line(store: RegionStore, classifier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store.folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["classes"]["names"] = [["x" * 1000]]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(LesaError, match="holds regions with classes") as refused:
        extract(tmp_path, ["a.png"], copy, load_backbone(f"hf:{classifier}"))
    assert len(str(refused.value)) < 800


def test_classes_that_were_changed_or_removed_are_refused(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "p", 4, store.names)
    file = tmp_path / "p" / CLASSES_FILE
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(LesaError, match="is not the file that the store's manifest names"):
        RegionStore.open(tmp_path / "p").classes()
    file.unlink()
    with pytest.raises(LesaError, match="cannot be read"):
        RegionStore.open(tmp_path / "p").classes()


def test_a_store_of_an_older_version_has_no_classes(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "p", 4, store.names)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    del manifest["classes"]
    (tmp_path / "p" / "manifest.json").write_text(json.dumps(manifest))
    assert RegionStore.open(tmp_path / "p").classes() == "the store was made before classes were kept"


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LesaError, match="expected one row and one bias per class"):
        Classes((("cat",),), np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
    with pytest.raises(LesaError, match="has no name"):
        Classes(((),), np.zeros((1, 3), np.float32), np.zeros(1, np.float32))


@pytest.fixture(scope="module")
def collection(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection with a third region store, `named`, whose backbone knows classes."""
    folder = tmp_path_factory.mktemp("collection")
    make_collection(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESA_CACHE", str(folder / "cache"))
        photos = list_photos(folder / "photos")
        extract(folder / "photos", photos, folder / "named", load_backbone(f"hf:{classifier}"))
    return folder


def settings_of(collection: Path, regions: Path) -> dict[str, Any]:
    """The settings of a recipe that takes the classes as examples."""
    places = {"dataset": str(collection / "set"), "vectors": [str(collection / "vectors.txt")]}
    return {"recipe": "synthesised", **places, "regions": str(regions), "model": {"settings": {"classes": True}}}


def renamed(collection: Path, copy: Path, *names: list[str]) -> Path:
    """Copy the store `named`, with other names of its three classes."""
    shutil.copytree(collection / "named", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["classes"]["names"] = names
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def unit_mean(run: Run, *names: str) -> np.ndarray:
    """The direction of the mean of the names' vectors."""
    mean_E = run.space.embed(names).mean(axis=0)
    return np.asarray(mean_E / np.linalg.norm(mean_E))


def test_a_method_takes_the_classes_as_examples_and_finds_them_again(collection: Path, tmp_path: Path) -> None:
    run = train(make_recipe(settings_of(collection, collection / "named")), tmp_path / "run")
    model = load_model(open_run(tmp_path / "run"))
    assert model.known is not None
    rows_KD = known(RegionStore.open(collection / "named")).rows_KD
    np.testing.assert_allclose(model.known.rows_KD.numpy(), rows_KD - rows_KD.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.known.vectors_KE[0].numpy(), unit_mean(run, "moon", "car"), atol=1e-6)
    assert model.get_parameter("map_AP").shape == (len(SEEN) + 3, len(SEEN) + 3)
    assert "ZSL" in evaluate_run(run, k=(1,)).reports["lesa"]
    with pytest.raises(LesaError, match=r"model\.settings\.classes is on, but .* the model has no classifier"):
        train(make_recipe(settings_of(collection, collection / "raw")), tmp_path / "other")


def test_names_without_a_vector_are_left_out_and_classes_without_a_name_too(collection: Path, tmp_path: Path) -> None:
    store = renamed(collection, tmp_path / "store", ["okapi", "moon", "car"], ["okapi", "red okapi"], ["red car"])
    run = train(make_recipe(settings_of(collection, store)), tmp_path / "run")
    model = load_model(open_run(tmp_path / "run"))
    assert model.known is not None
    expected_KE = [unit_mean(run, "moon", "car"), unit_mean(run, "red car")]
    np.testing.assert_allclose(model.known.vectors_KE.numpy(), expected_KE, atol=1e-6)
    rows_KD = known(RegionStore.open(store)).rows_KD
    expected_KD = (rows_KD - rows_KD.mean(axis=0))[[0, 2]]
    np.testing.assert_allclose(model.known.rows_KD.numpy(), expected_KD, atol=1e-6)
    assert model.get_parameter("map_AP").shape == (len(SEEN) + 2, len(SEEN) + 2)


def test_a_run_says_how_many_classes_it_kept(collection: Path, tmp_path: Path) -> None:
    settings = settings_of(collection, renamed(collection, tmp_path / "store", ["moon"], ["okapi"], ["cup"]))
    config = tmp_path / "config.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if key != "model"))
    command = ["train", str(config), "-o", str(tmp_path / "run"), "--set", "model.settings.classes=true"]
    result = CliRunner().invoke(cli, command)
    assert result.output.count("classes of the backbone that have a vector: 2 of 3\n") == 1, result.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["classes"] == {"kept": 2, "of": 3}
    assert open_run(tmp_path / "run").classes == {"kept": 2, "of": 3}


def test_a_run_without_a_class_that_has_a_vector_is_refused(collection: Path, tmp_path: Path) -> None:
    store = renamed(collection, tmp_path / "store", ["okapi"], ["red okapi"], ["gnu", "wildebeest"])
    with pytest.raises(LesaError, match=r"vectors\.txt has no vector for any name of the 3 classes .* such as 'okapi'"):
        train(make_recipe(settings_of(collection, store)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.shared
def test_a_real_backbone_names_an_animal_by_its_kept_classes(shared: Path) -> None:
    from skimage import data

    backbone = load_backbone(f"hf:{shared / 'weights' / 'mobilenet_v2_1.0_224'}")
    classes = backbone.classes
    assert isinstance(classes, Classes)
    assert len(classes.names) == 1000
    pixels = to_pixels(Image.fromarray(data.cat()), backbone.preprocessing)
    with torch.inference_mode():
        pooled_D = backbone.module(torch.from_numpy(pixels[None])).mean(dim=1)[0].numpy()
    best = np.argsort(-(classes.rows_KD @ pooled_D + classes.bias_K))[:5]
    assert any("cat" in name for k in best for name in classes.names[k])
