"""A backbone: a frozen network that turns pixels into regions, and all that is needed to load it again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from lesa.images import Preprocessing

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
