"""Principal components compared with scikit-learn's; the projected store; regions of new photos."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.decomposition import PCA

from lesa.errors import LesaError
from lesa.images import list_photos
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.extract import extract
from lesa.learn.regions.projection import Extractor, Projection, fit_projection, project, read_projection
from lesa.learn.regions.store import RegionStore, StoreWriter

MANIFEST = {"backbone": {"spec": "test"}, "preprocessing": {}, "grid": (2, 2), "size": 6, "projection": None}
PREPROCESSOR = {
    "size": {"shortest_edge": 40},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 2,
}


def correlated(photos: int, seed: int = 0) -> np.ndarray:
    """Regions (photos, 4, 6) with a large mean and unequal variances."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(6, 6)) * [5, 3, 2, 1, 0.5, 0.2]
    return (random.normal(size=(photos, 4, 6)) @ mixing.T + 30).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> RegionStore:
    with StoreWriter(tmp_path / "store", MANIFEST) as writer:
        writer.append([f"{i}.jpg" for i in range(100)], correlated(100))
        writer.fail("broken.jpg", "is not a photo")
    return RegionStore.open(tmp_path / "store")


def test_components_agree_with_scikit_learn() -> None:
    regions_BRD = correlated(200)
    projection, explained = fit_projection(iter(np.array_split(regions_BRD, 7)), 4)
    pca = PCA(4).fit(regions_BRD.reshape(-1, 6).astype(np.float64))
    signs = np.sign((pca.components_ * projection.components.T).sum(axis=1))
    np.testing.assert_allclose(projection.components.T, pca.components_ * signs[:, None], atol=1e-6)
    np.testing.assert_allclose(projection.mean_D, pca.mean_, rtol=1e-6)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-9)
    projected = projection.apply(regions_BRD).reshape(-1, 4)
    np.testing.assert_allclose(projected, pca.transform(regions_BRD.reshape(-1, 6)) * signs, atol=1e-4)


def test_a_large_mean_costs_no_digits() -> None:
    random = np.random.default_rng(0)
    regions_BRD = (random.normal(size=(50, 4, 3)) * [1, 0.1, 0.01] + 1000).astype(np.float32)
    projection, _ = fit_projection(iter([regions_BRD[:9], regions_BRD[9:]]), 3)
    centred = regions_BRD.reshape(-1, 3).astype(np.float64)
    centred -= centred.mean(axis=0)
    # The singular vectors of the centred rows are the same components.
    expected = np.linalg.svd(centred, full_matrices=False)[2]
    np.testing.assert_allclose(np.abs(projection.components.T), np.abs(expected), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 5), st.data())
def test_components_are_orthonormal_signed_and_do_not_depend_on_the_batches(
    photos: int, size: int, seed: int, data: st.DataObject
) -> None:
    regions_BRD = correlated(photos, seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, photos - 1))))
    projection, explained = fit_projection(iter(np.split(regions_BRD, cuts)), size)
    components = projection.components
    np.testing.assert_allclose(components.T @ components, np.eye(size), atol=1e-5)
    assert (components[np.abs(components).argmax(axis=0), np.arange(size)] > 0).all()
    assert 0 <= explained <= 1 + 1e-9
    whole, explained_whole = fit_projection(iter([regions_BRD]), size)
    np.testing.assert_allclose(components, whole.components, atol=1e-4)
    assert explained == pytest.approx(explained_whole)


def test_all_components_keep_all_distances() -> None:
    regions_BRD = correlated(20)
    projection, explained = fit_projection(iter([regions_BRD]), 6)
    assert explained == pytest.approx(1)
    lengths = np.linalg.norm(regions_BRD - projection.mean_D, axis=2)
    np.testing.assert_allclose(np.linalg.norm(projection.apply(regions_BRD), axis=2), lengths, rtol=1e-4)


def test_a_projected_store_says_where_it_comes_from(store: RegionStore, tmp_path: Path) -> None:
    calls: list[tuple[int, ...]] = []
    names = [f"{i}.jpg" for i in range(70)]
    explained = project(store, tmp_path / "small", 2, names, progress=lambda *at: calls.append(at))
    assert calls == [(64, 170), (70, 170), (134, 170), (170, 170)]
    small = RegionStore.open(tmp_path / "small")
    assert (small.names, small.grid, small.size) == (store.names, store.grid, 2)
    assert small.failed() == {"broken.jpg": "is not a photo"}
    assert small.manifest["backbone"] == store.manifest["backbone"]
    learned = {"file": "projection.safetensors", "source_size": 6, "photos": 70, "variance_kept": explained}
    assert small.manifest["projection"] == learned
    # The components are fitted on the named photos, in the half precision of the store.
    expected, share = fit_projection(iter([store.read(store.index(names))]), 2)
    assert share == pytest.approx(explained)
    projection = read_projection(tmp_path / "small")
    assert projection is not None
    np.testing.assert_allclose(projection.components, expected.components, atol=1e-5)
    rows = np.arange(100)
    np.testing.assert_allclose(small.read(rows), projection.apply(store.read(rows)), rtol=2**-11, atol=1e-4)


def test_a_store_of_a_backbones_own_features_has_no_projection(store: RegionStore) -> None:
    assert read_projection(store.folder) is None


def test_a_projection_that_was_stopped_is_begun_anew(store: RegionStore, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 164:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project(store, tmp_path / "small", 3, store.names, progress=interrupt)
    project(store, tmp_path / "small", 2, store.names)
    assert RegionStore.open(tmp_path / "small").size == 2


def test_a_finished_store_is_not_overwritten(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "small", 2, store.names)
    with pytest.raises(LesaError, match="small holds a finished store: give another folder"):
        project(store, tmp_path / "small", 3, store.names)
    with pytest.raises(LesaError, match="store holds a finished store"):
        project(store, store.folder, 3, store.names)


def test_a_projected_store_is_not_projected_again(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "small", 3, store.names)
    with pytest.raises(LesaError, match="is projected already"):
        project(RegionStore.open(tmp_path / "small"), tmp_path / "smaller", 2, store.names)


@pytest.mark.parametrize(("size", "photos"), [(0, 100), (7, 100), (5, 1)])
def test_a_size_that_cannot_be_kept_is_refused(store: RegionStore, tmp_path: Path, size: int, photos: int) -> None:
    with pytest.raises(LesaError, match=rf"cannot keep {size} components; expected 1 to \d for 6 features"):
        project(store, tmp_path / "small", size, store.names[:photos])
    assert not (tmp_path / "small").exists()


def test_a_lost_projection_is_named(store: RegionStore, tmp_path: Path) -> None:
    project(store, tmp_path / "small", 2, store.names)
    (tmp_path / "small" / "projection.safetensors").unlink()
    with pytest.raises(LesaError, match=r"projection\.safetensors cannot be read"):
        read_projection(tmp_path / "small")


@pytest.fixture
def photo_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of eight photos, made with a small network with random weights."""
    from transformers import ResNetConfig, ResNetModel

    monkeypatch.setenv("LESA_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"))
    network.save_pretrained(tmp_path / "network")
    (tmp_path / "network" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(8):
        pixels = random.integers(0, 256, (50 + i, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    backbone = load_backbone(f"hf:{tmp_path / 'network'}", fit="squash")
    extract(tmp_path / "photos", list_photos(tmp_path / "photos"), tmp_path / "features", backbone)
    return tmp_path / "features"


def test_new_photos_are_taken_as_the_stores_were(photo_store: Path, tmp_path: Path) -> None:
    store = RegionStore.open(photo_store)
    project(store, tmp_path / "small", 3, store.names)
    photos = [tmp_path / "photos" / name for name in store.names[2:5]]
    for folder in (photo_store, tmp_path / "small"):
        extractor = Extractor.from_store(folder)
        expected_BRD = RegionStore.open(folder).read([2, 3, 4])
        assert extractor.grid == store.grid
        assert extractor.preprocessing.fit == "squash"
        regions_BRD = extractor.regions(photos)
        assert regions_BRD.dtype == np.float32
        np.testing.assert_allclose(regions_BRD, expected_BRD, rtol=2e-3, atol=5e-3)


def test_a_folder_given_relative_is_found_from_elsewhere(
    photo_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_backbone("hf:network").spec == f"hf:{tmp_path / 'network'}"


def test_changed_weights_are_noticed(photo_store: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "network" / "model.safetensors"
    state = load_file(path)
    state["embedder.embedder.convolution.weight"] += 1
    save_file(state, path, {"format": "pt"})
    with pytest.raises(LesaError, match=r"weights of hf:.* are not those that .*features was made with"):
        Extractor.from_store(photo_store)
    shutil.rmtree(tmp_path / "network")
    with pytest.raises(LesaError, match="cannot be loaded"):
        Extractor.from_store(photo_store)


def test_a_photo_that_is_none_is_named(photo_store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no photo")
    with pytest.raises(LesaError, match=r"notes\.jpg is not a photo"):
        Extractor.from_store(photo_store).regions([tmp_path / "notes.jpg"])


def test_a_projection_is_mean_then_components() -> None:
    projection = Projection(np.array([1, 2], np.float32), np.array([[0], [3]], np.float32))
    assert projection.apply(np.array([[[5, 4]]], np.float32)).tolist() == [[[6]]]


def test_regions_that_are_all_alike_are_refused() -> None:
    with pytest.raises(LesaError, match="the same features"):
        fit_projection(iter([np.ones((4, 3, 5), np.float32)]), 2)
