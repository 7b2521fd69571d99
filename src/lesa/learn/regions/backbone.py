"""A backbone: a frozen network that turns pixels into regions, with everything needed to load it again."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from lesa.images import Preprocessing
from lesa.learn.regions.classes import Classes

Options = Mapping[str, str | int]


@dataclass(frozen=True)
class Backbone:
    """A frozen network that turns pixels into regions, with everything needed to load it again."""

    spec: str
    """The spec that loads it: `vgg19`, or `hf:` and a name or an absolute folder."""
    module: nn.Module
    """Pixels (B, 3, H, W; float32) -> regions (B, R, D), row by row of the grid."""
    grid: tuple[int, int]
    """Rows and columns of the regions: R = rows x columns."""
    size: int
    """Number of features per region (D)."""
    preprocessing: Preprocessing
    """How a photo becomes pixels."""
    options: dict[str, str | int]
    """The options that replace parts of the network's own configuration."""
    weights: str | None = None
    """Absolute path of the weights, if the spec does not contain it."""
    find_classes: Callable[[], Classes | str] = lambda: "the backbone has no classifier"
    """Finds `classes`; it may have to load the classifier."""

    @cached_property
    def classes(self) -> Classes | str:
        """The classes that it knows by name, or the reason why it has no classes."""
        return self.find_classes()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the weights' names and values."""
        digest = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()
