"""VGG-19, the paper's backbone, with weights from torchvision's or TF-slim's files."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lesa.errors import LesaError, did_you_mean
from lesa.images import Preprocessing
from lesa.learn.regions.backbone import Backbone
from lesa.learn.tensorflow.checkpoint import read_checkpoint

PAPER = Preprocessing("crop", 256, 224, (123.68, 116.78, 103.94), (1.0, 1.0, 1.0), 1.0, "bilinear")
LATER = Preprocessing("squash", 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255, "bilinear")
NO_CLASSES = "VGG-19's classifier does not act on the mean region"
VGG_PREPROCESSING = {"paper": PAPER, "later": LATER}
VGG_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Number of convolutions and of channels of each block."""


class VGG19(nn.Module):
    """VGG-19 (Simonyan & Zisserman 2015) up to conv5_4 after ReLU; layers have the names of torchvision's `vgg19`.

    Differs from torchvision's: it has no last pooling and no classifier.
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


def load_vgg19(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    """Load VGG-19 as a backbone; see `lesa.learn.regions.backbones.load_backbone`."""
    if name:
        raise LesaError(f"vgg19 takes no name, but {name!r} was given: write `vgg19` and give the weights separately")
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
    _load_weights(module, weights)
    size = VGG_BLOCKS[-1][1]
    settings = VGG_PREPROCESSING[preprocessing]
    return Backbone(
        "vgg19", module.eval(), (14, 14), size, settings, options, str(weights.absolute()), lambda: NO_CLASSES
    )


def _load_weights(module: VGG19, weights: Path) -> None:
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
    """Read a state dict: a `.safetensors` or `.pth` file, or a TF-slim checkpoint, renamed to torchvision's names.

    Raises:
        LesaError: the file does not exist or cannot be read, or is a pickle of more than tensors.
    """
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        if weights.suffix in {".pth", ".pt"}:
            return dict(torch.load(weights, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise LesaError(f"weights {weights} do not exist") from None
    except UnpicklingError:
        raise LesaError(f"weights {weights} hold more than tensors: save the state dict alone") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise LesaError(f"weights {weights} cannot be read: {error}") from None
    return _from_slim(read_checkpoint(weights))


def _from_slim(variables: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename TF-slim's variables to torchvision's names; TF-slim's kernels are (row, column, in, out)."""
    state = {}
    layer = 0
    for block, (convolutions, _) in enumerate(VGG_BLOCKS, 1):
        for i in range(1, convolutions + 1):
            name = f"vgg_19/conv{block}/conv{block}_{i}"
            for ours, theirs in (("weight", "weights"), ("bias", "biases")):
                if f"{name}/{theirs}" in variables:
                    value = torch.tensor(variables[f"{name}/{theirs}"])
                    state[f"features.{layer}.{ours}"] = value.permute(3, 2, 0, 1) if ours == "weight" else value
            layer += 2
        layer += 1
    return state
