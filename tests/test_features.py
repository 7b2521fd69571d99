import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from lesa.errors import LesaError
from lesa.images import Preprocessing, list_photos, open_photo, to_pixels
from lesa.learn.regions import store as features
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.extract import Summary, extract
from lesa.learn.regions.store import RegionStore, StoreWriter, read_manifest

PLAIN = Preprocessing("squash", 8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255, "bilinear")
ABOUT = {"backbone": {"spec": "test"}, "preprocessing": PLAIN.to_dict(), "grid": (1, 2), "size": 3, "projection": None}


class Tiny(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 4, stride=4)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (self.convolution(pixels) * self.scale).flatten(2).transpose(1, 2)


def tiny(scale: float = 1.0, **options) -> Backbone:
    return Backbone("tiny", Tiny(scale).eval(), (2, 2), 5, PLAIN, options)


@pytest.fixture(autouse=True)
def small_shards(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(features, "PHOTOS_PER_SHARD", 4)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eleven photos, of which the fourth and the last are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(11):
        size = (int(random.integers(5, 40)), int(random.integers(5, 40)), 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "03.png").write_text("no photo")
    (folder / "10.png").write_bytes((folder / "09.png").read_bytes()[:100])
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_what_pytorch_gives_for_each_photo(photos, tmp_path):
    backbone = tiny()
    calls = []
    names = list_photos(photos)
    summary = extract(photos, names, tmp_path / "store", backbone, batch_size=3, progress=lambda *at: calls.append(at))
    assert summary == Summary(done=9, failed=2)
    assert calls == [(3, 11, 0), (6, 11, 1), (9, 11, 1), (11, 11, 2)]
    store = RegionStore.open(tmp_path / "store")
    assert store.names == tuple(name for name in names if name not in {"03.png", "10.png"})
    assert (store.grid, store.size, len(store)) == ((2, 2), 5, 9)
    pixels = np.stack([to_pixels(open_photo(photos / name), PLAIN) for name in store.names])
    expected_BRD = backbone.module(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(store.read(range(9)), expected_BRD, rtol=2**-11, atol=1e-6)


def test_failed_photos_are_listed_with_reasons(photos, tmp_path):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    lines = [json.loads(line) for line in (tmp_path / "store" / "failed.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["03.png", "10.png"]
    assert "is not a photo" in lines[0]["reason"]
    with pytest.raises(LesaError, match=r"1 photos are not in .*, first 03\.png \(.*is not a photo"):
        RegionStore.open(tmp_path / "store").index(["00.png", "03.png"])


def test_photos_that_are_not_in_the_store_are_named(photos, tmp_path):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    store = RegionStore.open(tmp_path / "store")
    assert store.index(["05.png", "00.png"]).tolist() == [4, 0]
    with pytest.raises(LesaError, match=r"2 photos are not in .*, first a\.jpg, b\.jpg: extract"):
        store.index(["a.jpg", "00.png", "b.jpg"])


def test_an_interrupted_extraction_goes_on_to_the_same_bytes(photos, tmp_path):
    names = list_photos(photos)
    extract(photos, names, tmp_path / "whole", tiny(), batch_size=1)
    for stop in range(1, 11):

        def interrupt(done: int, total: int, failed: int, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract(photos, names, tmp_path / f"cut{stop}", tiny(), batch_size=1, progress=interrupt)
        # Photos 0, 1, 2, 4 make the first shard, 5 to 8 the second: committed photos are not taken again.
        again = []
        progress = lambda done, total, failed, again=again: again.append(done)  # noqa: E731
        extract(photos, names, tmp_path / f"cut{stop}", tiny(), batch_size=1, progress=progress)
        assert again[0] == (1 if stop < 5 else 6 if stop < 9 else 10)
        assert content(tmp_path / f"cut{stop}") == content(tmp_path / "whole")


def test_a_killed_extraction_goes_on_to_the_same_bytes(photos, tmp_path):
    names = list_photos(photos)
    extract(photos, names, tmp_path / "whole", tiny(), batch_size=2)
    program = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_features as t; t.features.PHOTOS_PER_SHARD = 4\n"
        "kill = lambda done, *_: done == 8 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "photos = Path(sys.argv[2])\n"
        "t.extract(photos, t.list_photos(photos), Path(sys.argv[3]), t.tiny(), batch_size=2, progress=kill)\n"
    )
    here = str(Path(__file__).parent)
    killed = subprocess.run([sys.executable, "-c", program, here, str(photos), str(tmp_path / "killed")], check=False)
    assert killed.returncode == -9
    assert read_manifest(tmp_path / "killed")["rows"] == 4
    with pytest.raises(LesaError, match=r"is not finished \(4 photos so far\)"):
        RegionStore.open(tmp_path / "killed")
    extract(photos, names, tmp_path / "killed", tiny(), batch_size=2)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_what_was_not_committed_is_dropped(tmp_path):
    with pytest.raises(LesaError, match="not finite"), StoreWriter(tmp_path, ABOUT) as writer:  # noqa: PT012
        writer.append(list("abcdef"), np.arange(36, dtype=np.float32).reshape(6, 2, 3))
        writer.fail("g", "broken")
        writer.append(["h"], np.full((1, 2, 3), np.nan, np.float32))
    # As if the machine had stopped after the shard and the names, before the manifest.
    with (tmp_path / "names.txt").open("a") as file:
        file.write("e\nf")
    with (tmp_path / "failed.jsonl").open("a") as file:
        file.write('{"name": "g", "rea')
    (tmp_path / "shard-00001.f16").write_bytes(b"half")
    with StoreWriter(tmp_path, ABOUT) as again:
        assert [name in again for name in "abcdefg"] == [True] * 4 + [False] * 3
        again.append(["e", "f"], np.full((2, 2, 3), 7.0, np.float32))
    store = RegionStore.open(tmp_path)
    assert store.names == tuple("abcdef")
    assert store.read([3, 4]).tolist() == [[[18, 19, 20], [21, 22, 23]], [[7] * 3] * 2]
    assert not store.failed()


def test_a_finished_store_takes_new_photos(photos, tmp_path):
    names = list_photos(photos)
    extract(photos, names[:6], tmp_path / "store", tiny())
    before = RegionStore.open(tmp_path / "store").read(range(5))
    assert extract(photos, names, tmp_path / "store", tiny()) == Summary(done=9, failed=2)
    assert np.array_equal(RegionStore.open(tmp_path / "store").read(range(5)), before)
    assert read_manifest(tmp_path / "store")["shards"] == [4, 1, 4]


def test_extracting_again_changes_nothing(photos, tmp_path):
    names = list_photos(photos)
    extract(photos, names, tmp_path / "store", tiny())
    before = content(tmp_path / "store")
    assert extract(photos, names, tmp_path / "store", tiny()) == Summary(done=9, failed=2)
    assert content(tmp_path / "store") == before


@pytest.mark.parametrize("other", [tiny(scale=2.0), tiny(output_stride=16)])
def test_going_on_with_another_backbone_is_refused(photos, tmp_path, other):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    with pytest.raises(LesaError, match=r"holds regions with backbone .*, asked was .*: give another folder"):
        extract(photos, list_photos(photos), tmp_path / "store", other)


def test_going_on_with_another_preprocessing_is_refused(photos, tmp_path):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    other = Backbone("tiny", Tiny(), (2, 2), 5, Preprocessing("crop", *list(PLAIN.to_dict().values())[1:]), {})
    with pytest.raises(LesaError, match="holds regions with preprocessing"):
        extract(photos, list_photos(photos), tmp_path / "store", other)


def test_names_with_any_sign_but_a_line_feed_are_kept(photos, tmp_path):
    names = ["a\rb.png", "c\u2028d.png", "e\x85f.png", "bild \u202f é.png"]
    for name in [*names, "g\nh.png"]:
        (photos / name).write_bytes((photos / "00.png").read_bytes())
    summary = extract(photos, [*names, "g\nh.png"], tmp_path / "store", tiny())
    assert summary == Summary(done=4, failed=1)
    store = RegionStore.open(tmp_path / "store")
    assert store.names == tuple(names)
    assert store.failed() == {"g\nh.png": r"'g\nh.png' cannot stand on a line of text: rename the file"}


def test_a_name_that_is_not_utf8_is_listed_as_failed(photos, tmp_path):
    name = "bad\udcff.png"
    try:
        (photos / name).write_bytes((photos / "00.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert extract(photos, list_photos(photos), tmp_path / "store", tiny()) == Summary(done=9, failed=3)
    assert name in RegionStore.open(tmp_path / "store").failed()


@pytest.mark.parametrize("value", [7e4, -7e4, np.nan, np.inf])
def test_a_value_that_half_precision_cannot_hold_is_refused(tmp_path, value):
    regions_BRD = np.zeros((2, 2, 3), np.float32)
    regions_BRD[1, 0, 0] = value
    message = r"b\.jpg: a feature is not finite or above 65504"
    with pytest.raises(LesaError, match=message), StoreWriter(tmp_path, ABOUT) as writer:
        writer.append(["a.jpg", "b.jpg"], regions_BRD)
    assert not (tmp_path / "shard.part").exists()


def test_a_store_without_a_photo_says_why(photos, tmp_path):
    extract(photos, ["03.png"], tmp_path / "store", tiny())
    with pytest.raises(LesaError, match=r"holds no photo: .*failed\.jsonl says why"):
        RegionStore.open(tmp_path / "store")


def test_a_missing_or_cut_shard_is_named(photos, tmp_path):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    shard = tmp_path / "store" / "shard-00001.f16"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(LesaError, match=r"shard-00001\.f16 has 159 bytes, expected 160"):
        RegionStore.open(tmp_path / "store")
    shard.unlink()
    with pytest.raises(LesaError, match=r"shard-00001\.f16 has 0 bytes"):
        RegionStore.open(tmp_path / "store")


def test_lost_names_are_noticed(photos, tmp_path):
    extract(photos, list_photos(photos), tmp_path / "store", tiny())
    names = tmp_path / "store" / "names.txt"
    names.write_bytes(names.read_bytes()[:20])
    with pytest.raises(LesaError, match=r"names\.txt has 2 names for 9 rows"):
        RegionStore.open(tmp_path / "store")
    with pytest.raises(LesaError, match=r"names\.txt is shorter than 63 bytes"):
        extract(photos, list_photos(photos), tmp_path / "store", tiny())


def test_what_is_no_store_or_of_another_version_is_refused(tmp_path):
    with pytest.raises(LesaError, match="is not a region store"):
        RegionStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "lesa-regions-9"}')
    with pytest.raises(LesaError, match="has format 'lesa-regions-9', this version reads 'lesa-regions-1'"):
        RegionStore.open(tmp_path)


def test_a_row_outside_the_store_is_an_error(tmp_path):
    with StoreWriter(tmp_path, ABOUT) as writer:
        writer.append(["a"], np.zeros((1, 2, 3), np.float32))
    store = RegionStore.open(tmp_path)
    assert store.read([]).shape == (0, 2, 3)
    for row in (-1, 1):
        with pytest.raises(IndexError):
            store.read([row])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_come_back_in_any_order(tmp_path_factory, data):
    photos = data.draw(st.integers(1, 15))
    regions_BRD = np.random.default_rng(photos).normal(size=(photos, 2, 3)).astype(np.float16)
    folder = tmp_path_factory.mktemp("store")
    for start in range(0, photos, step := data.draw(st.integers(1, 15))):
        part = regions_BRD[start : start + step].astype(np.float32)
        with StoreWriter(folder, ABOUT) as writer:
            writer.append([str(start + i) for i in range(len(part))], part)
    rows = data.draw(st.lists(st.integers(0, photos - 1)))
    read = RegionStore.open(folder).read(rows)
    assert read.dtype == np.float32
    assert np.array_equal(read, regions_BRD[rows])


@pytest.mark.shared
def test_real_photos_become_regions(shared, tmp_path):
    from lesa.learn.regions.backbones import load_backbone

    root = shared / "data" / "photos"
    backbone = load_backbone(f"hf:{shared / 'weights' / 'mobilenet_v2_1.0_224'}", fit="squash")
    names = list_photos(root)[:10]
    assert extract(root, names, tmp_path, backbone) == Summary(done=10, failed=0)
    store = RegionStore.open(tmp_path)
    pixels = np.stack([to_pixels(open_photo(root / name), backbone.preprocessing) for name in names])
    with torch.inference_mode():
        expected_BRD = backbone.module(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(store.read(store.index(names)), expected_BRD, atol=5e-3)


def test_a_folder_with_other_files_of_those_names_is_left_alone(tmp_path) -> None:
    (tmp_path / "names.txt").write_text("my own list\n")
    with pytest.raises(LesaError, match=r"not a region store but holds names\.txt"):
        StoreWriter(tmp_path, ABOUT)
    assert (tmp_path / "names.txt").read_text() == "my own list\n"
