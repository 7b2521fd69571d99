"""Loading a backbone by its spec: VGG-19 or a Hugging Face model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from lesa.errors import LesaError, did_you_mean
from lesa.learn.regions.backbone import Backbone, Options
from lesa.learn.regions.hugging_face import load_hugging_face
from lesa.learn.regions.vgg19 import load_vgg19

SOURCES: dict[str, Callable[[str, dict[str, str | int], Path | None], Backbone]] = {
    "hf": load_hugging_face,
    "vgg19": load_vgg19,
}
"""Source of a spec -> the function that loads it."""


def load_backbone(
    spec: str, options: Options | None = None, weights: Path | None = None, fit: str | None = None
) -> Backbone:
    """Load a backbone by its spec.

    Args:
        spec: `vgg19` (as in the paper: conv5_4 after ReLU, 14 x 14 x 512); or `hf:` and the name or folder of a Hugging
            Face model (the last map of a CNN, or the patch tokens of a ViT, DeiT, DINOv2, CLIP or SigLIP).
        options: for `vgg19`: `preprocessing`, which is `paper` or `later`; for `hf:`: any key of the model's
            configuration, such as `output_stride=16`.
        weights: for `vgg19`: torchvision's state dict (`.pth` or `.safetensors`), or the prefix of a TF-slim
            checkpoint.
        fit: `crop` or `squash`, in place of the fit of the backbone's own preprocessing.

    Raises:
        LesaError: the spec or an option is unknown, weights are missing or do not fit, or the model cannot be loaded.
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
