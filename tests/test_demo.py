"""The embedded data and the demonstration on it."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lesa.errors import LesaError
from lesa.learn.datasets.dataset import read_dataset
from lesa.learn.datasets.demo import PACKED, unpack_demo
from lesa.learn.experiments import demo
from lesa.learn.experiments.demo import CONTROL, MAIN, run_demo
from lesa.learn.regions.store import RegionStore, StoreWriter
from lesa.vectors import read_vectors

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "photos"
PACKED_FILES = {
    "README.md",
    "dataset.json",
    "projection.safetensors",
    "regions.json",
    "regions.npz",
    "targets.safetensors",
    "vectors.safetensors",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    unpack_demo(folder)
    return folder


@pytest.fixture(scope="module")
def about():
    return json.loads((PACKED / "regions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packed():
    with np.load(io.BytesIO((PACKED / "regions.npz").read_bytes()), allow_pickle=False) as arrays:
        return arrays["codes"], arrays["step"]


def file_bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_package_carries_at_most_16_mb_of_known_files():
    sizes = {Path(str(path)).name: len(path.read_bytes()) for path in PACKED.iterdir()}
    assert set(sizes) == PACKED_FILES
    assert sum(sizes.values()) <= 16_000_000


def test_no_caption_text_and_no_path_of_a_machine_is_carried():
    text = (PACKED / "dataset.json").read_text(encoding="utf-8") + (PACKED / "regions.json").read_text(encoding="utf-8")
    data = json.loads((PACKED / "dataset.json").read_text(encoding="utf-8"))
    assert "/home/" not in text
    assert '"/' not in text
    assert all(name.endswith(".jpg") and " " not in name for names in data["photos"].values() for name in names)


def test_the_readme_tells_what_is_there(about):
    text = (PACKED / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in PACKED_FILES - {"README.md"})
    assert f"{about['projection']['step']:.4g}" in text


def test_the_unpacked_data_set_has_all_labels_and_at_least_4000_photos(unpacked):
    data = read_dataset(unpacked / "dataset")
    assert (len(data.vocabulary.seen), len(data.vocabulary.unseen)) == (292, 44)
    assert {name: len(split.photos) for name, split in data.splits.items()} == {
        "train": 2600,
        "validation": 394,
        "test": 1206,
    }
    test = data.split("test").targets
    assert test.present_per_photo(data.vocabulary.unseen_columns) == pytest.approx(0.884, abs=5e-4)
    assert test.present_per_photo(data.vocabulary.seen_columns) == pytest.approx(3.987, abs=5e-4)


def test_the_splits_are_those_of_the_whole_benchmark(unpacked):
    draws = {"train": range(50, 600), "validation": range(50), "test": range(600, 1000)}
    for name, split in read_dataset(unpacked / "dataset").splits.items():
        assert all(int(hashlib.sha256(photo.encode()).hexdigest(), 16) % 1000 in draws[name] for photo in split.photos)


def test_the_unpacked_store_has_the_codes_of_every_photo(unpacked, packed):
    store = RegionStore.open(unpacked / "regions")
    splits = read_dataset(unpacked / "dataset").splits.values()
    names = [photo for split in splits for photo in split.photos]
    assert (store.names, store.grid, store.size) == (tuple(names), (7, 7), 96)
    codes_DNR, step = packed
    for n in (0, 300, 4199):
        expected_RD = codes_DNR[:, n].T.astype(np.float64) * float(step)
        np.testing.assert_allclose(store.read([n])[0], expected_RD, rtol=1e-3)


def test_the_codes_are_those_that_the_description_names(about, packed):
    codes_DNR, step = packed
    assert hashlib.sha256(codes_DNR.tobytes()).hexdigest() == about["projection"]["codes_sha256"]
    assert float(step) == about["projection"]["step"]
    assert (np.abs(codes_DNR) == 127).mean() < 1e-3


def test_every_label_has_a_vector(unpacked):
    names = read_dataset(unpacked / "dataset").vocabulary.names
    assert read_vectors(str(unpacked / "vectors.safetensors"), names).shape == (336, 384)


def test_unpacking_again_changes_nothing(unpacked):
    before = file_bytes(unpacked)
    unpack_demo(unpacked)
    assert file_bytes(unpacked) == before


def test_an_interrupted_unpacking_is_completed(unpacked, about, tmp_path):
    whole = RegionStore.open(unpacked / "regions")
    writer = StoreWriter(tmp_path / "regions", about)
    writer.append(whole.names[:300], whole.read(range(300)))
    writer.commit()
    unpack_demo(tmp_path)
    completed = RegionStore.open(tmp_path / "regions")
    assert completed.names == whole.names
    rows = np.arange(len(whole))
    np.testing.assert_array_equal(completed.read(rows), whole.read(rows))


def test_regions_of_another_version_are_refused(unpacked, tmp_path):
    shutil.copytree(unpacked, tmp_path / "data")
    manifest = tmp_path / "data" / "regions" / "manifest.json"
    there = json.loads(manifest.read_text(encoding="utf-8"))
    there["projection"]["codes_sha256"] = "0" * 64
    manifest.write_text(json.dumps(there), encoding="utf-8")
    with pytest.raises(LesaError, match="give another folder"):
        unpack_demo(tmp_path / "data")


def test_the_demo_trains_evaluates_and_reports_and_keeps_what_is_done(tmp_path, monkeypatch):
    brief = {title: (folder, {**recipe, "steps": 2}) for title, (folder, recipe) in demo.RUNS.items()}
    for _, recipe in brief.values():
        recipe.pop("epochs", None)
    monkeypatch.setattr(demo, "RUNS", brief)
    said: list[str] = []
    report = run_demo(tmp_path, said.append)
    assert report == tmp_path / "report.html"
    assert report.stat().st_size < 900_000
    assert "tagged by the packaged model" not in report.read_text(encoding="utf-8")
    assert [line.split("  ")[0] for line in said[1:-1]] == list(brief)
    assert "shows no tagged photos" in said[-1]
    weights = [tmp_path / "runs" / folder / "last.safetensors" for folder, _ in brief.values()]
    before = [path.stat().st_mtime_ns for path in weights]
    again: list[str] = []
    page = run_demo(tmp_path, again.append, EXAMPLES / "labels.csv").read_text(encoding="utf-8")
    assert again == said[:-1]
    assert page.count('src="data:image/jpeg;base64,') == len(list(EXAMPLES.glob("*.jpg")))
    assert len(page) < 900_000
    assert [path.stat().st_mtime_ns for path in weights] == before


def test_photos_that_cannot_be_tagged_are_refused_before_the_training(tmp_path):
    (tmp_path / "labels.csv").write_text("photo,labels\nmissing.jpg,cat\n", encoding="utf-8")
    with pytest.raises(LesaError, match=r"missing\.jpg does not exist"):
        run_demo(tmp_path / "demo", print, tmp_path / "labels.csv")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_attention_earns_its_keep_in_the_whole_demo(tmp_path):
    run_demo(tmp_path, lambda _: None)

    def metrics(title):
        folder, _ = demo.RUNS[title]
        evaluation = json.loads((tmp_path / "runs" / folder / "evaluation.json").read_text(encoding="utf-8"))
        return evaluation["reports"]["lesa"]

    # Chance is 3.4 and 1.5.
    assert metrics("LESA, published")["ZSL"]["f1"]["5"] > 10
    assert metrics("LESA, published")["GZSL"]["f1"]["5"] > 20
    assert metrics(MAIN)["ZSL"]["f1"]["5"] > metrics(CONTROL)["ZSL"]["f1"]["5"] + 1
