"""Backbones: photos' pixels -> regions_BRD and their grid. Frozen: VGG-19, Hugging Face models, and the own student."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lesa.errors import LesaError, did_you_mean
from lesa.images import Preprocessing
from lesa.learn import student
from lesa.learn.official import read_checkpoint
from lesa.learn.student import Student

Options = Mapping[str, str | int]


@dataclass(frozen=True)
class Backbone:
    """A frozen network that turns pixels into regions, and all that is needed to load it again."""

    spec: str
    """What it was loaded by: `vgg19`, or `hf:` and a name or an absolute folder."""
    module: nn.Module
    """Pixels (B, 3, H, W; float32) -> regions (B, R, D), row by row of the grid."""
    grid: tuple[int, int]
    """Rows and columns of the regions: R = rows x columns."""
    size: int
    """Features a region (D)."""
    preprocessing: Preprocessing
    """How a photo becomes pixels."""
    options: dict[str, str | int]
    """What was changed of the network's own configuration."""
    weights: str | None = None
    """File of the weights (absolute), where the spec does not say it."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the weights' names and values."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def load_backbone(
    spec: str, options: Options | None = None, weights: Path | None = None, fit: str | None = None
) -> Backbone:
    """Load a backbone by its spec.

    Args:
        spec: `vgg19` (the paper: conv5_4 after ReLU, 14 x 14 x 512), or `hf:` and the name or folder of a Hugging Face
            model: a CNN's last map, or the patch tokens of a ViT, DeiT, DINOv2, CLIP or SigLIP; `student` (the default
            bundle's small backbone).
        options: of `vgg19`: `preprocessing`, `paper` or `later`; of `hf:`, any key of the model's configuration, such
            as `output_stride=16`.
        weights: of `vgg19`: torchvision's state dict (`.pth` or `.safetensors`), or a TF-slim checkpoint (its prefix);
            of `student`: what `tools/default_backbone.py` wrote.
        fit: `crop` or `squash` instead of what the backbone's own preprocessing does.

    Raises:
        LesaError: an unknown spec or option, weights that are missing or do not fit, or a model that cannot be had.
    """
    source, _, name = spec.partition(":")
    if source not in SOURCES:
        raise LesaError(f"no backbone is called {spec!r}; {did_you_mean(source, SOURCES)}")
    if fit not in (None, "crop", "squash"):
        raise LesaError(f"fit is {fit!r}; expected crop or squash")
    backbone = SOURCES[source](name, dict(options or {}), weights)
    if fit:
        fitted = replace(backbone.preprocessing, fit=cast(Literal["crop", "squash"], fit))
        backbone = replace(backbone, preprocessing=fitted)
    return backbone


# VGG-19


PAPER = Preprocessing("crop", 256, 224, (123.68, 116.78, 103.94), (1.0, 1.0, 1.0), 1.0, "bilinear")
LATER = Preprocessing("squash", 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255, "bilinear")
VGG_PREPROCESSING = {"paper": PAPER, "later": LATER}
VGG_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


class VGG19(nn.Module):
    """VGG-19 (Simonyan & Zisserman 2015) up to conv5_4 after ReLU; names and places as in torchvision's `vgg19`.

    Differs from torchvision's in that the last pooling and the classifier are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for convolutions, width in VGG_BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, H/16 x W/16, 512)."""
        regions: Tensor = self.features(pixels).flatten(2).transpose(1, 2)
        return regions


def _vgg19(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    if name:
        raise LesaError(f"vgg19 takes no name, but {name!r} was given: write `vgg19` and give the weights beside it")
    preprocessing = str(options.get("preprocessing", "paper"))
    if unknown := set(options) - {"preprocessing"}:
        raise LesaError(f"vgg19 has no option {min(unknown)!r}; {did_you_mean(min(unknown), ['preprocessing'])}")
    if preprocessing not in VGG_PREPROCESSING:
        known = did_you_mean(preprocessing, VGG_PREPROCESSING)
        raise LesaError(f"vgg19 has no preprocessing {preprocessing!r}; {known}")
    if weights is None:
        raise LesaError(
            "vgg19 needs weights: torchvision's published state dict (vgg19-dcbb9e9d.pth from download.pytorch.org/"
            "models) or TF-slim's vgg_19.ckpt"
        )
    module = VGG19()
    _load_vgg(module, weights)
    size = VGG_BLOCKS[-1][1]
    settings = VGG_PREPROCESSING[preprocessing]
    return Backbone("vgg19", module.eval(), (14, 14), size, settings, options, str(weights.absolute()))


def _load_vgg(module: VGG19, weights: Path) -> None:
    state = _read_state(weights)
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in state:
            raise LesaError(f"{weights} is not VGG-19: it has no {name}")
        if state[name].shape != value.shape:
            raise LesaError(
                f"{weights} is not VGG-19: {name} is {tuple(state[name].shape)}, expected {tuple(value.shape)}"
            )
    module.load_state_dict({name: state[name] for name in expected})


def _read_state(weights: Path) -> dict[str, Tensor]:
    """Read a state dict under torchvision's names, whatever it was stored as."""
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        if weights.suffix in {".pth", ".pt"}:
            return dict(torch.load(weights, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise LesaError(f"weights {weights} do not exist") from None
    except UnpicklingError:
        raise LesaError(f"weights {weights} hold more than tensors, which is not read: save its state dict") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise LesaError(f"weights {weights} cannot be read: {error}") from None
    return _from_slim(read_checkpoint(weights))


def _from_slim(variables: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename TF-slim's variables; its kernels are (row, column, in, out)."""
    state = {}
    place = 0
    for block, (convolutions, _) in enumerate(VGG_BLOCKS, 1):
        for i in range(1, convolutions + 1):
            name = f"vgg_19/conv{block}/conv{block}_{i}"
            for ours, theirs in (("weight", "weights"), ("bias", "biases")):
                if f"{name}/{theirs}" in variables:
                    value = torch.tensor(variables[f"{name}/{theirs}"])
                    state[f"features.{place}.{ours}"] = value.permute(3, 2, 0, 1) if ours == "weight" else value
            place += 2
        place += 1
    return state


# The student


def _student(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    if name or options:
        raise LesaError("student takes no name and no option")
    if weights is None:
        raise LesaError("student needs weights: what tools/default_backbone.py wrote (student.safetensors)")
    module = Student()
    try:
        module.load_state_dict(_read_state(weights))
    except RuntimeError as error:
        raise LesaError(f"{weights} is not the student: {str(error).strip().splitlines()[-1].strip()}") from None
    spec = replace(LATER, short_side=student.SIDE, size=student.SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Backbone("student", module.eval(), student.GRID, student.SIZE, spec, options, str(weights.absolute()))


# Hugging Face


# The part of a model of pictures and words that sees.
TOWERS = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
# Tokens in front of the patches, by model type; register tokens are counted by the configuration.
PREFIX_TOKENS = {
    "clip_vision_model": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "siglip_vision_model": 0,
    "vit": 1,
}


class CnnRegions(nn.Module):
    """A CNN's last map as regions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, R, D), row by row."""
        regions: Tensor = self.model(pixel_values=pixels).last_hidden_state.flatten(2).transpose(1, 2)
        return regions


class PatchRegions(nn.Module):
    """A transformer's patch tokens as regions."""

    def __init__(self, model: nn.Module, prefix: int) -> None:
        super().__init__()
        self.model = model
        self.prefix = prefix

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, R, D), row by row, without class and register tokens."""
        regions: Tensor = self.model(pixel_values=pixels).last_hidden_state[:, self.prefix :]
        return regions


def _hugging_face(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    if weights is not None:
        raise LesaError(f"hf: models bring their own weights, but {weights} was given: name its folder as hf:FOLDER")
    folder = Path(name)
    source = str(folder.absolute()) if folder.is_dir() else name
    try:
        model, settings = _load_hugging_face(source, options)
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LesaError(f"hf:{name} cannot be loaded: {reason} (a name, or a folder with config.json?)") from None
    preprocessing = read_preprocessing(settings, f"hf:{name}")
    module, grid, size = _regions_of(model, preprocessing.size, f"hf:{name}")
    return Backbone(f"hf:{source}", module, grid, size, preprocessing, options)


def _load_hugging_face(source: str, options: dict[str, str | int]) -> tuple[Any, dict[str, Any]]:
    """Return the model that sees, in single precision, and the raw settings of its preprocessor."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    maker = getattr(transformers, TOWERS.get(config.model_type, "AutoModel"))
    if config.model_type in TOWERS:
        config = config.vision_config
    for key, value in options.items():
        if not hasattr(config, key):
            raise LesaError(f"{source} has no option {key!r}; {did_you_mean(key, config.to_dict())}")
        setattr(config, key, value)
    with _quiet():
        # Safetensors only: other weight files are pickles.
        model, report = maker.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    # A pooler is often missing and never used here; anything else would be random numbers.
    if missing := [key for key in report["missing_keys"] if "pooler" not in key]:
        raise LesaError(f"{source} lacks {len(missing)} weights, such as {missing[0]}: it is not a whole model")
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source)
    return model.eval(), settings


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and its report of unused weights (the classifier's) off the screen."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _regions_of(model: Any, side: int, name: str) -> tuple[nn.Module, tuple[int, int], int]:
    """Return the module from pixels to regions, its grid and D, found by running one blank photo through it."""
    try:
        with torch.inference_mode():
            blank = model(pixel_values=torch.zeros(1, 3, side, side)).last_hidden_state
    except (ValueError, RuntimeError) as error:
        raise LesaError(f"{name} does not take photos of {side} x {side}: {error}") from None
    if blank.ndim == 4:
        return CnnRegions(model).eval(), (blank.shape[2], blank.shape[3]), blank.shape[1]
    kind = model.config.model_type
    if kind not in PREFIX_TOKENS:
        raise LesaError(f"{name} is a {kind}, whose tokens are not known here; known are {', '.join(PREFIX_TOKENS)}")
    prefix = PREFIX_TOKENS[kind] + getattr(model.config, "num_register_tokens", 0)
    side //= model.config.patch_size
    if blank.shape[1] != prefix + side * side:
        raise LesaError(f"{name} gave {blank.shape[1]} tokens, expected {prefix} and a grid of {side} x {side}")
    return PatchRegions(model, prefix).eval(), (side, side), blank.shape[2]


def read_preprocessing(settings: Mapping[str, Any], name: str) -> Preprocessing:
    """Turn the settings of a Hugging Face image processor (`preprocessor_config.json`) into a Preprocessing.

    Raises:
        LesaError: settings that are missing or of another kind.
    """
    filters = {2: "bilinear", 3: "bicubic"}
    try:
        short, size = _sides(settings)
        rescale, normalise = settings.get("do_rescale", True), settings.get("do_normalize", True)
        return Preprocessing(
            fit="crop" if short else "squash",
            short_side=short or size,
            size=size,
            mean=tuple(settings["image_mean"]) if normalise else (0.0, 0.0, 0.0),
            std=tuple(settings["image_std"]) if normalise else (1.0, 1.0, 1.0),
            scale=settings.get("rescale_factor", 1 / 255) if rescale else 1.0,
            resample=cast(Literal["bilinear", "bicubic"], filters[settings.get("resample", 2)]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LesaError(f"{name}: its preprocessor_config.json is not understood: {error!r}") from None


def _sides(settings: Mapping[str, Any]) -> tuple[int | None, int]:
    """Return the short side (none where the photo is squashed) and the side of the square."""
    size, crop = settings["size"], settings.get("do_center_crop", False)
    if isinstance(size, int):
        # The old form.
        size = {"shortest_edge": size} if crop else {"height": size, "width": size}
    if "shortest_edge" not in size:
        return None, _square(size)
    short = size["shortest_edge"]
    if "crop_pct" in settings:
        # ConvNeXT's processor, ResNet's too: small squares are cut out of a larger photo, large ones squash it.
        return (int(short / settings["crop_pct"]), short) if short < 384 else (None, short)
    return short, _square(settings["crop_size"]) if crop else short


def _square(size: int | Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    if size["height"] != size["width"]:
        raise ValueError(f"{size} is not a square")
    return size["height"]


SOURCES: dict[str, Callable[[str, dict[str, str | int], Path | None], Backbone]] = {
    "hf": _hugging_face,
    "student": _student,
    "vgg19": _vgg19,
}
