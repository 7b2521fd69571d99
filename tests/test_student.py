"""The small backbone, and the choice of its teacher's channels."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lesa.errors import LesaError
from lesa.learn.regions import student
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.projection import Projection
from lesa.learn.regions.student import Student

TOOL = Path(__file__).resolve().parents[1] / "tools" / "default_backbone.py"
CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
WHOLE = tuple(
    (place, channels, 6 * channels, out, stride)
    for place, (channels, out, stride) in enumerate(zip(CHANNELS, CHANNELS[1:], STRIDES, strict=False))
)
"""MobileNetV2's own blocks."""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("default_backbone", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["default_backbone"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_file({name: value.half() for name, value in Student().state_dict().items()}, path)
    return path


def test_its_regions_are_what_it_says(weights: Path) -> None:
    backbone = load_backbone("student", weights=weights)
    side = backbone.preprocessing.size
    with torch.inference_mode():
        regions_BRD = backbone.module(torch.rand(2, 3, side, side))
    assert regions_BRD.shape == (2, backbone.grid[0] * backbone.grid[1], backbone.size)


def test_it_takes_a_third_of_its_teachers_multiplications() -> None:
    def products(blocks: tuple[tuple[int, ...], ...], stem: int, last: tuple[int, int], side: int) -> float:
        size = side // 2
        total = size**2 * (27 * stem + 9 * stem + stem * 16)
        for _, channels, hidden, out, stride in blocks:
            total += size**2 * channels * hidden
            size //= stride
            total += size**2 * (9 * hidden + hidden * out)
        return total + size**2 * (320 * last[0] + last[0] * last[1])

    ours = products(student.BLOCKS, student.STEM, (student.LAST, student.SIZE), student.SIDE)
    assert products(WHOLE, 32, (1280, 0), 224) / ours == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [("student:x", {}, "no name"), ("student", {"size": 3}, "no option"), ("student", {}, "needs weights")],
)
def test_what_it_does_not_take_is_refused(spec: str, options: dict[str, str | int], message: str) -> None:
    with pytest.raises(LesaError, match=message):
        load_backbone(spec, options)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(LesaError, match="not the student"):
        load_backbone("student", weights=tmp_path / "a.safetensors")


@pytest.fixture
def teacher() -> torch.nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2Model

    torch.manual_seed(0)
    teacher = MobileNetV2Model(MobileNetV2Config(image_size=64, tf_padding=True, finegrained_output=True)).eval()
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return teacher


@torch.no_grad()
def test_with_all_channels_it_is_its_teacher(
    teacher: torch.nn.Module, tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (student, tool):
        monkeypatch.setattr(module, "BLOCKS", WHOLE)
    monkeypatch.setattr(student, "STEM", 32)
    monkeypatch.setattr(student, "LAST", 1280)
    random = np.random.default_rng(0)
    components = np.linalg.qr(random.normal(size=(1280, student.SIZE)))[0].astype(np.float32)
    projection = Projection(random.normal(size=1280).astype(np.float32), components)
    pixels = torch.rand(2, 3, 64, 64)
    regions_BRD = tool.pruned(teacher, projection, pixels)(pixels)
    maps = teacher(pixel_values=pixels).last_hidden_state.flatten(2).transpose(1, 2)
    torch.testing.assert_close(regions_BRD, torch.from_numpy(projection.apply(maps.numpy())), rtol=1e-3, atol=1e-3)


def test_views_depend_on_the_seed_alone_and_no_test_photo_takes_part(tool: ModuleType, tmp_path: Path) -> None:
    from PIL import Image
    from skimage import data

    for number in range(40):
        Image.fromarray(data.coffee()).resize((40, 30)).save(tmp_path / f"{number}.jpg")
    names = tool.names_of(tmp_path, "train")
    values = {f"{n}.jpg": int(hashlib.sha256(f"{n}.jpg".encode()).hexdigest(), 16) % 1000 for n in range(40)}
    assert names == sorted(name for name, value in values.items() if 50 <= value < 600)
    assert tool.names_of(tmp_path, "validation") == sorted(name for name, value in values.items() if value < 50)
    photos = tool.read_photos(tmp_path, names)
    for round_ in (0, 1, 4):
        pixels = tool.view(photos, torch.arange(3), round_)
        assert pixels.shape == (3, 3, student.SIDE, student.SIDE)
        assert pixels.abs().max() <= 1
        torch.testing.assert_close(tool.view(photos, torch.arange(3), round_), pixels)
