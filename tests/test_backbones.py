"""Backbones: VGG-19 against a computation by hand, Hugging Face models and graphs against PyTorch; wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lesa.errors import LesaError
from lesa.images import Preprocessing
from lesa.learn.regions import graphs, vgg19
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.backbones import load_backbone
from lesa.learn.regions.graphs import check_graph, graph_path, random_pixels, run_on
from lesa.learn.regions.hugging_face import read_preprocessing
from lesa.learn.regions.vgg19 import VGG19

# torchvision's vgg19: place in `features`, channels in and out.
TORCHVISION = [
    (0, 3, 64),
    (2, 64, 64),
    (5, 64, 128),
    (7, 128, 128),
    (10, 128, 256),
    (12, 256, 256),
    (14, 256, 256),
    (16, 256, 256),
    (19, 256, 512),
    (21, 512, 512),
    (23, 512, 512),
    (25, 512, 512),
    (28, 512, 512),
    (30, 512, 512),
    (32, 512, 512),
    (34, 512, 512),
]
# The same convolutions in TF-slim's order.
SLIM = [f"conv{block}/conv{block}_{i}" for block, n in enumerate((2, 2, 4, 4, 4), 1) for i in range(1, n + 1)]
PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 3,
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def vgg_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, inside, out in TORCHVISION:
        scale = (2 / (9 * inside)) ** 0.5
        state[f"features.{place}.weight"] = torch.randn(out, inside, 3, 3, generator=generator) * scale
        state[f"features.{place}.bias"] = torch.randn(out, generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def vgg_file(vgg_state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With a classifier, like the published file, but smaller.
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(vgg_state | {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}, path)
    return path


def convolve(pixels_CHW: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3 x 3 convolution with a border of zeros, as nine matrix products in double precision."""
    _, height, width = pixels_CHW.shape
    padded = np.pad(pixels_CHW, ((0, 0), (1, 1), (1, 1)))
    out = np.repeat(bias[:, None], height * width, axis=1).reshape(-1, height, width)
    for row in range(3):
        for column in range(3):
            moved = padded[:, row : row + height, column : column + width]
            out += np.tensordot(kernel[:, :, row, column], moved, axes=1)
    return out


def vgg_by_hand(pixels_CHW: np.ndarray, state: dict[str, torch.Tensor]) -> np.ndarray:
    """conv5_4 after ReLU as (C, H, W)."""
    values = pixels_CHW.astype(np.float64)
    last = 0
    for place, _, _ in TORCHVISION:
        if place - last == 3:
            channels, height, width = values.shape
            values = values.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))
        kernel, bias = (state[f"features.{place}.{part}"].double().numpy() for part in ("weight", "bias"))
        values = np.maximum(convolve(values, kernel, bias), 0)
        last = place
    return values


def test_vgg19_has_torchvisions_names_and_shapes() -> None:
    expected = {}
    for place, inside, out in TORCHVISION:
        expected[f"features.{place}.weight"] = (out, inside, 3, 3)
        expected[f"features.{place}.bias"] = (out,)
    assert {name: tuple(value.shape) for name, value in VGG19().state_dict().items()} == expected


def test_vgg19_is_the_network_computed_by_hand(vgg_file: Path, vgg_state: dict[str, torch.Tensor]) -> None:
    backbone = load_backbone("vgg19", weights=vgg_file)
    pixels = np.random.default_rng(0).uniform(-100, 100, (3, 32, 48)).astype(np.float32)
    with torch.inference_mode():
        regions_RD = backbone.module(torch.from_numpy(pixels)[None])[0].numpy()
    expected_RD = vgg_by_hand(pixels, vgg_state).reshape(512, 6).T
    np.testing.assert_allclose(regions_RD, expected_RD, rtol=1e-4, atol=1e-5 * np.abs(expected_RD).max())


def test_vgg19_says_what_it_is(vgg_file: Path) -> None:
    backbone = load_backbone("vgg19", weights=vgg_file)
    assert (backbone.grid, backbone.size, backbone.weights) == ((14, 14), 512, str(vgg_file))
    settings = backbone.preprocessing
    assert (settings.fit, settings.short_side, settings.size, settings.scale) == ("crop", 256, 224, 1.0)
    assert (settings.mean, settings.std) == ((123.68, 116.78, 103.94), (1, 1, 1))
    later = load_backbone("vgg19", {"preprocessing": "later"}, vgg_file).preprocessing
    assert (later.fit, later.size, later.scale, later.mean[0], later.std[0]) == ("squash", 224, 1 / 255, 0.485, 0.229)
    assert load_backbone("vgg19", {}, vgg_file, fit="squash").preprocessing.fit == "squash"


def test_vgg19_loads_safetensors_and_slims_variables_alike(
    vgg_file: Path, vgg_state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(vgg_state, tmp_path / "vgg19.safetensors")
    variables = {"vgg_19/fc8/biases": np.zeros(3, np.float32), "global_step": np.int64(1)}
    for (place, _, _), name in zip(TORCHVISION, SLIM, strict=True):
        kernel = vgg_state[f"features.{place}.weight"].numpy()
        # Output, input, row, column -> row, column, input, output.
        variables[f"vgg_19/{name}/weights"] = np.ascontiguousarray(np.moveaxis(kernel, (2, 3, 1, 0), (0, 1, 2, 3)))
        variables[f"vgg_19/{name}/biases"] = vgg_state[f"features.{place}.bias"].numpy()
    # test_checkpoint.py tests the reading of TensorFlow's own files.
    monkeypatch.setattr(vgg19, "read_checkpoint", lambda prefix: variables)
    expected = load_backbone("vgg19", weights=vgg_file).fingerprint()
    assert load_backbone("vgg19", weights=tmp_path / "vgg19.safetensors").fingerprint() == expected
    assert load_backbone("vgg19", weights=tmp_path / "vgg_19.ckpt").fingerprint() == expected


def test_vgg19_without_weights_says_where_they_come_from() -> None:
    with pytest.raises(LesaError, match=r"vgg19-dcbb9e9d\.pth.*TF-slim"):
        load_backbone("vgg19")


def test_weights_of_another_network_are_named(vgg_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(LesaError, match=r"a\.safetensors is not VGG-19: features\.0\.weight is \(2, 2\), expected"):
        load_backbone("vgg19", weights=tmp_path / "a.safetensors")
    cut = {name: value for name, value in vgg_state.items() if name != "features.34.bias"}
    save_file(cut, tmp_path / "b.safetensors")
    with pytest.raises(LesaError, match=r"it has no features\.34\.bias"):
        load_backbone("vgg19", weights=tmp_path / "b.safetensors")


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors", "gone"])
def test_missing_weights_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(LesaError, match="gone"):
        load_backbone("vgg19", weights=tmp_path / name)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Path("x")}, tmp_path / "evil.pth")
    with pytest.raises(LesaError, match=r"evil\.pth hold more than tensors"):
        load_backbone("vgg19", weights=tmp_path / "evil.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(LesaError, match=r"tensor\.pth cannot be read"):
        load_backbone("vgg19", weights=tmp_path / "tensor.pth")


@pytest.mark.parametrize(
    ("spec", "options", "fit", "message"),
    [
        ("vgg91", {}, None, r"no backbone is called 'vgg91'; did you mean 'vgg19'\? There are: hf, vgg19"),
        ("vgg19:x", {}, None, "takes no name"),
        ("vgg19", {"preprocesing": "paper"}, None, "no option 'preprocesing'; did you mean 'preprocessing'"),
        ("vgg19", {"preprocessing": "papr"}, None, "did you mean 'paper'"),
        ("vgg19", {}, "stretch", "fit is 'stretch'; expected crop or squash"),
    ],
)
def test_a_wrong_word_is_answered_with_what_there_is(
    spec: str, options: dict[str, str | int], fit: str | None, message: str
) -> None:
    with pytest.raises(LesaError, match=message):
        load_backbone(spec, options, fit=fit)


# Hugging Face: small models with random weights


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}


def small_models() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    """Kind -> (function that makes the model, number of tokens before the patches)."""
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPVisionConfig,
        CLIPVisionModel,
        DeiTConfig,
        DeiTModel,
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        SiglipConfig,
        SiglipModel,
        SiglipVisionConfig,
        SiglipVisionModel,
        ViTConfig,
        ViTForImageClassification,
    )

    return {
        "vit": (lambda: ViTForImageClassification(ViTConfig(**VIT)), 1),
        "deit": (lambda: DeiTModel(DeiTConfig(**VIT)), 2),
        "clip": (lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VIT, projection_dim=8)), 1),
        "clip tower": (lambda: CLIPVisionModel(CLIPVisionConfig(**VIT)), 1),
        "siglip": (lambda: SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VIT)), 0),
        "siglip tower": (lambda: SiglipVisionModel(SiglipVisionConfig(**VIT)), 0),
        "dinov2": (lambda: Dinov2Model(Dinov2Config(**VIT)), 1),
        "dinov2 with registers": (
            lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**VIT, num_register_tokens=3)),
            4,
        ),
        # Trained with one size, used with another: positions are interpolated.
        "dinov2 of another size": (lambda: Dinov2Model(Dinov2Config(**VIT | {"image_size": 48})), 1),
    }


def save_model(model: nn.Module, folder: Path, **settings: Any) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | settings))
    return folder


def own_output(kind: str, model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """All tokens as the model itself gives them."""
    if kind == "vit":
        model = model.vit
    if kind in {"clip", "siglip"}:
        model = model.vision_model
    return model(pixel_values=pixels).last_hidden_state


@pytest.mark.parametrize("kind", list(small_models()))
def test_patch_tokens_come_without_class_and_register_tokens(kind: str, tmp_path: Path) -> None:
    make, prefix = small_models()[kind]
    torch.manual_seed(0)
    model = make().eval()
    backbone = load_backbone(f"hf:{save_model(model, tmp_path)}")
    assert (backbone.grid, backbone.size) == ((4, 4), 16)
    pixels = random_pixels(backbone.preprocessing, 3)
    with torch.inference_mode():
        tokens_BTD = own_output(kind, model, torch.from_numpy(pixels))
        regions_BRD = backbone.module(torch.from_numpy(pixels))
    assert tokens_BTD.shape[1] == prefix + 16
    torch.testing.assert_close(regions_BRD, tokens_BTD[:, prefix:], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip", "dinov2 with registers", "dinov2 of another size"])
def test_transformers_run_as_graphs(kind: str, tmp_path: Path) -> None:
    backbone = load_backbone(f"hf:{save_model(small_models()[kind][0](), tmp_path)}")
    pixels = random_pixels(backbone.preprocessing, 5)
    with torch.inference_mode():
        expected_BRD = backbone.module(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(run_on(backbone)(pixels), expected_BRD, atol=1e-5)


def small_cnn() -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"))


def test_a_cnn_map_becomes_regions_row_by_row(tmp_path: Path) -> None:
    model = small_cnn().eval()
    backbone = load_backbone(f"hf:{save_model(model, tmp_path)}")
    pixels = torch.from_numpy(random_pixels(backbone.preprocessing, 2))
    with torch.inference_mode():
        map_BDHW = model(pixel_values=pixels).last_hidden_state.numpy()
        regions_BRD = backbone.module(pixels).numpy()
    rows, columns = backbone.grid
    assert map_BDHW.shape == (2, backbone.size, rows, columns)
    for row in range(rows):
        for column in range(columns):
            assert np.array_equal(regions_BRD[:, row * columns + column], map_BDHW[:, :, row, column])


@pytest.mark.shared
@pytest.mark.parametrize(("options", "grid"), [({}, (7, 7)), ({"output_stride": 16}, (14, 14))])
def test_mobilenet_v2_gives_its_last_map(shared: Path, options: dict[str, str | int], grid: tuple[int, int]) -> None:
    from transformers import AutoModel
    from transformers.utils import logging

    folder = shared / "weights" / "mobilenet_v2_1.0_224"
    backbone = load_backbone(f"hf:{folder}", options)
    assert (backbone.grid, backbone.size) == (grid, 1280)
    logging.set_verbosity_error()
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, **options).eval()
    pixels = random_pixels(backbone.preprocessing, 3)
    with torch.inference_mode():
        map_BDHW = model(pixel_values=torch.from_numpy(pixels)).last_hidden_state.numpy()
    expected_BRD = map_BDHW.reshape(3, 1280, -1).swapaxes(1, 2)
    np.testing.assert_allclose(run_on(backbone)(pixels), expected_BRD, atol=6e-4)


def test_loading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    save_model(ViTForImageClassification(ViTConfig(**VIT)), tmp_path)
    capfd.readouterr()
    load_backbone(f"hf:{tmp_path}")
    assert capfd.readouterr() == ("", "")


def test_a_model_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    save_model(small_cnn(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("embedder.embedder.convolution.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(LesaError, match=r"lacks 1 weights, such as embedder\.embedder\.convolution\.weight"):
        load_backbone(f"hf:{tmp_path}")


def test_a_model_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(LesaError, match=r"hf:.* cannot be loaded"):
        load_backbone(f"hf:{tmp_path}")
    with pytest.raises(LesaError, match="hf:no/such/folder cannot be loaded"):
        load_backbone("hf:no/such/folder")
    with pytest.raises(LesaError, match="hf: cannot be loaded"):
        load_backbone("hf:")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_model(small_cnn(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(LesaError, match=r"hf:.* cannot be loaded"):
        load_backbone(f"hf:{tmp_path}")


def test_an_unknown_option_of_a_model_is_answered_with_what_was_meant(tmp_path: Path) -> None:
    save_model(small_cnn(), tmp_path)
    with pytest.raises(LesaError, match="no option 'depth'; did you mean 'depths'"):
        load_backbone(f"hf:{tmp_path}", {"depth": 3})


def test_weights_beside_a_hugging_face_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="has its own weights"):
        load_backbone("hf:x", weights=tmp_path)


def test_a_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    make, _ = small_models()["vit"]
    save_model(make(), tmp_path, size={"height": 48, "width": 48})
    with pytest.raises(LesaError, match="does not take photos of 48 x 48"):
        load_backbone(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("squash", 32, 32)),
        ({"size": 40}, ("squash", 40, 40)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, ("crop", 40, 32)),
        ({"size": 40, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, ("crop", 40, 32)),
        ({"size": {"shortest_edge": 40}}, ("crop", 40, 40)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, ("crop", 256, 224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ("squash", 384, 384)),
    ],
)
def test_hugging_face_sizes_are_understood(settings: dict[str, Any], expected: tuple[str, int, int]) -> None:
    made = read_preprocessing(PREPROCESSOR | settings, "model")
    assert (made.fit, made.short_side, made.size) == expected
    assert (made.mean, made.std, made.resample) == (
        (0.5, 0.4, 0.3),
        (0.2, 0.3, 0.4),
        "bicubic",
    )


def test_steps_that_a_processor_leaves_out_are_left_out() -> None:
    made = read_preprocessing(PREPROCESSOR | {"do_rescale": False, "do_normalize": False}, "model")
    assert (made.scale, made.mean, made.std) == (1.0, (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("settings", [{"size": {"height": 30, "width": 40}}, {"resample": 9}, {"image_mean": None}])
def test_a_processor_that_is_not_understood_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(LesaError, match=r"model: its preprocessor_config\.json is not understood"):
        read_preprocessing(PREPROCESSOR | settings, "model")


# Graphs


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.convolution(pixels).flatten(2).transpose(1, 2)


def tiny() -> Backbone:
    torch.manual_seed(0)
    settings = Preprocessing("squash", 8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255, "bilinear")
    return Backbone("tiny", Tiny().eval(), (2, 2), 5, settings, {})


def test_a_graph_is_exported_once_and_takes_any_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path))
    backbone = tiny()
    first = run_on(backbone)
    assert [path.suffix for path in (tmp_path / "graphs").iterdir()] == [".onnx"]
    monkeypatch.setattr(graphs, "_export_graph", None)
    again = run_on(tiny())
    for photos in (1, 2, 7):
        pixels = random_pixels(backbone.preprocessing, photos)
        assert np.array_equal(first(pixels), again(pixels))
        np.testing.assert_allclose(first(pixels), tiny().module(torch.from_numpy(pixels)).detach().numpy(), atol=1e-6)


def test_pytorch_and_the_graph_agree() -> None:
    backbone = tiny()
    pixels = random_pixels(backbone.preprocessing, 4)
    on_pytorch = graphs._on_pytorch(backbone.module, "cpu")
    np.testing.assert_allclose(run_on(backbone)(pixels), on_pytorch(pixels), atol=1e-6)


def test_other_weights_make_another_graph() -> None:
    backbone = tiny()
    before = graph_path(backbone)
    with torch.no_grad():
        backbone.module.convolution.bias[0] += 1
    assert graph_path(backbone) != before


def test_a_graph_that_differs_from_pytorch_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path))
    backbone = tiny()
    path = graph_path(backbone)
    run_on(backbone)
    with torch.no_grad():
        backbone.module.convolution.weight[0] += 0.01
    with pytest.raises(LesaError, match="the graph of tiny differs from PyTorch by"):
        check_graph(backbone, path)
    monkeypatch.setattr(graphs, "TOLERANCE", 0.0)
    with pytest.raises(LesaError, match="differs"):
        run_on(backbone)
    assert list((tmp_path / "graphs").iterdir()) == [path]


def test_a_damaged_graph_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path))
    path = graph_path(tiny())
    path.parent.mkdir()
    path.write_bytes(b"rubbish")
    with pytest.raises(LesaError, match=r"cannot be opened.*delete it"):
        run_on(tiny())


def test_exporting_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESA_CACHE", str(tmp_path))
    run_on(tiny())
    assert capfd.readouterr() == ("", "")


def test_a_network_that_cannot_be_exported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Branching(Tiny):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return super().forward(pixels) * (1 if pixels.sum() > 0 else 2)

    monkeypatch.setenv("LESA_CACHE", str(tmp_path))
    settings = tiny().preprocessing
    with pytest.raises(LesaError, match="branching cannot be exported as a graph"):
        run_on(Backbone("branching", Branching().eval(), (2, 2), 5, settings, {}))


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(LesaError, match=f"device '{device}' cannot be used"):
        run_on(tiny(), device)
