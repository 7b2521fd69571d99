"""Backbones: photos' pixels -> regions_BRD and their grid. Frozen: VGG-19, Hugging Face models, and the own student."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from lesa.errors import LesaError, did_you_mean
from lesa.learn.regions.backbone import Backbone, Options
from lesa.learn.regions.hugging_face import _hugging_face
from lesa.learn.regions.student import _student
from lesa.learn.regions.vgg19 import _vgg19


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


# The student


# Hugging Face


SOURCES: dict[str, Callable[[str, dict[str, str | int], Path | None], Backbone]] = {
    "hf": _hugging_face,
    "student": _student,
    "vgg19": _vgg19,
}
