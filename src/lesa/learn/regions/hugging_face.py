"""Hugging Face models as backbones: a CNN's last map, or a transformer's patch tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lesa.errors import LesaError, did_you_mean
from lesa.images import Preprocessing
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.classes import Classes

# A model of pictures and texts has two parts; this is the class of its part for pictures.
TOWERS = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}

# Number of tokens before the patches, by model type; the configuration gives the number of register tokens.
PREFIX_TOKENS = {
    "clip_vision_model": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "siglip_vision_model": 0,
    "vit": 1,
}


class _CnnRegions(nn.Module):
    """A CNN's last map as regions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, R, D), row by row."""
        regions: Tensor = self.model(pixel_values=pixels).last_hidden_state.flatten(2).transpose(1, 2)
        return regions


class _PatchRegions(nn.Module):
    """A transformer's patch tokens as regions."""

    def __init__(self, model: nn.Module, prefix: int) -> None:
        super().__init__()
        self.model = model
        self.prefix = prefix

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, R, D), row by row, without class and register tokens."""
        regions: Tensor = self.model(pixel_values=pixels).last_hidden_state[:, self.prefix :]
        return regions


def load_hugging_face(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    """Load a Hugging Face model as a backbone; see `lesa.learn.regions.backbones.load_backbone`."""
    if weights is not None:
        raise LesaError(f"an hf: model has its own weights, but {weights} was given: write hf:FOLDER instead")
    folder = Path(name)
    source = str(folder.absolute()) if folder.is_dir() else name
    try:
        model, settings = _load_model(source, options)
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LesaError(f"hf:{name} cannot be loaded: {reason}; give a name, or a folder with config.json") from None
    preprocessing = read_preprocessing(settings, f"hf:{name}")
    module, grid, size = _regions_of(model, preprocessing.size, f"hf:{name}")
    find_classes = partial(_classes_of, source, model, module, preprocessing.size)
    return Backbone(f"hf:{source}", module, grid, size, preprocessing, options, find_classes=find_classes)


def _classes_of(source: str, model: Any, module: nn.Module, side: int) -> Classes | str:
    """Return the classes of the checkpoint's classifier, or the reason why it has none that act on the mean region."""
    import transformers

    if not any(name.endswith("ForImageClassification") for name in model.config.architectures or ()):
        return "the model has no classifier"
    with _quiet():
        whole = transformers.AutoModelForImageClassification.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True
        ).eval()
    layers = [layer for layer in whole.modules() if isinstance(layer, nn.Linear) and layer.out_features > 1]
    last, names = layers[-1] if layers else None, model.config.id2label
    if last is None or last.out_features != len(names):
        return "the model's last layer is not a linear classifier"
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled_BD = module(pixels).mean(dim=1)
        fits = pooled_BD.shape[1] == last.in_features and torch.allclose(
            last(pooled_BD), whole(pixel_values=pixels).logits, rtol=1e-3, atol=1e-3
        )
    if not fits:
        return "the model's classifier does not act on the mean region"
    # TensorFlow's models have a class 0 for everything else, which is a name of nothing.
    kept = [k for k in range(len(names)) if names[k] != "background"]
    bias_K = torch.zeros(len(names)) if last.bias is None else last.bias.detach()
    return Classes(
        names=tuple(tuple(part.strip() for part in names[k].split(",")) for k in kept),
        rows_KD=last.weight.detach().numpy()[kept],
        bias_K=bias_K.numpy()[kept],
    )


def _load_model(source: str, options: dict[str, str | int]) -> tuple[Any, dict[str, Any]]:
    """Return the model's part for pictures, in single precision, and the settings of its image processor."""
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
        # Safetensors only: other files of weights are pickles.
        model, report = maker.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    # A pooler is often missing, and it is never used here. Other missing weights would be random numbers.
    if missing := [key for key in report["missing_keys"] if "pooler" not in key]:
        raise LesaError(f"{source} lacks {len(missing)} weights, such as {missing[0]}: it is not a complete model")
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source)
    return model.eval(), settings


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and its report of unused weights, such as those of the classifier."""
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
    """Return the module from pixels to regions, its grid and D. One blank photo is run to find grid and D."""
    try:
        with torch.inference_mode():
            blank = model(pixel_values=torch.zeros(1, 3, side, side)).last_hidden_state
    except (ValueError, RuntimeError) as error:
        raise LesaError(f"{name} does not take photos of {side} x {side}: {error}") from None
    if blank.ndim == 4:
        return _CnnRegions(model).eval(), (blank.shape[2], blank.shape[3]), blank.shape[1]
    kind = model.config.model_type
    if kind not in PREFIX_TOKENS:
        raise LesaError(f"{name} is a {kind}, which is not supported; give a CNN or one of {', '.join(PREFIX_TOKENS)}")
    prefix = PREFIX_TOKENS[kind] + getattr(model.config, "num_register_tokens", 0)
    side //= model.config.patch_size
    if blank.shape[1] != prefix + side * side:
        raise LesaError(f"{name} gave {blank.shape[1]} tokens, expected {prefix} and a grid of {side} x {side}")
    return _PatchRegions(model, prefix).eval(), (side, side), blank.shape[2]


def read_preprocessing(settings: Mapping[str, Any], name: str) -> Preprocessing:
    """Turn the settings of a Hugging Face image processor (`preprocessor_config.json`) into a Preprocessing.

    Raises:
        LesaError: a setting is missing or has an unexpected form.
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
    """Return the short side (None if the photo is squashed) and the side of the square."""
    size, crop = settings["size"], settings.get("do_center_crop", False)
    if isinstance(size, int):
        # The form of older files.
        size = {"shortest_edge": size} if crop else {"height": size, "width": size}
    if "shortest_edge" not in size:
        return None, _square(size)
    short = size["shortest_edge"]
    if "crop_pct" in settings:
        # The processor of ConvNeXT and ResNet: a small square is cut out of a larger photo; for a large square the
        # photo is squashed.
        return (int(short / settings["crop_pct"]), short) if short < 384 else (None, short)
    return short, _square(settings["crop_size"]) if crop else short


def _square(size: int | Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    if size["height"] != size["width"]:
        raise ValueError(f"{size} is not a square")
    return size["height"]
