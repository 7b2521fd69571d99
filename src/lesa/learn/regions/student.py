"""The small backbone of the default bundle: MobileNetV2 with half of its hidden channels and without three blocks.

A block widens its input by a 1 x 1 convolution, filters each channel and narrows the result (Sandler et al.,
"MobileNetV2", CVPR 2018, section 3). Between the blocks there are as many channels as in the teacher, MobileNetV2, so
that the student can start with a part of its weights (`tools/default_backbone.py`). The batch normalisations are folded
into the convolutions. The weights are distributed only inside the default bundle, as its graph.
"""

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from lesa.errors import LesaError
from lesa.learn.regions.backbone import Backbone
from lesa.learn.regions.vgg19 import LATER, read_state

SIDE = 192
"""Side in pixels of its input square."""
GRID = (6, 6)
"""Rows and columns of its regions."""
SIZE = 256
"""D, the number of features per region: the teacher's first principal components."""
STEM, FIRST, LAST = 24, 16, 512
"""Numbers of channels: of the first two convolutions, before the blocks, and before the last layer."""
BLOCKS = (
    (0, 16, 48, 24, 2),
    (2, 24, 72, 32, 2),
    (3, 32, 96, 32, 1),
    (5, 32, 96, 64, 2),
    (6, 64, 192, 64, 1),
    (7, 64, 192, 64, 1),
    (9, 64, 192, 96, 1),
    (10, 96, 288, 96, 1),
    (11, 96, 288, 96, 1),
    (12, 96, 288, 160, 2),
    (13, 160, 480, 160, 1),
    (14, 160, 480, 160, 1),
    (15, 160, 480, 320, 1),
)
"""For each block: its number in the teacher, channels in, hidden channels, channels out, stride."""


class _Block(nn.Module):
    """Widen, filter, narrow; the input is added if the shapes agree."""

    def __init__(self, channels: int, hidden: int, out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU6(),
            *_filtered(hidden, hidden, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, channels, H, W) -> (B, out, H / stride, W / stride)."""
        out: Tensor = self.layers(maps)
        return maps + out if self.residual else out


class Student(nn.Module):
    """Pixels (B, 3, 192, 192) -> 36 regions of 256 features, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_filtered(3, STEM, 2), *_filtered(STEM, STEM, 1, groups=STEM), nn.Conv2d(STEM, FIRST, 1)
        )
        self.blocks = nn.Sequential(*(_Block(*shape) for _, *shape in BLOCKS))
        self.last = nn.Sequential(nn.Conv2d(BLOCKS[-1][3], LAST, 1), nn.ReLU6(), nn.Conv2d(LAST, SIZE, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> regions (B, H/32 x W/32, 256)."""
        regions: Tensor = self.last(self.blocks(self.stem(pixels))).flatten(2).transpose(1, 2)
        return regions


def _filtered(channels: int, out: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """Return a 3 x 3 convolution, padded as TensorFlow pads, with its ReLU6."""
    padding = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)
    return [padding, nn.Conv2d(channels, out, 3, stride, groups=groups), nn.ReLU6()]


def load_student(name: str, options: dict[str, str | int], weights: Path | None) -> Backbone:
    """Load the student as a backbone; see `lesa.learn.regions.backbones.load_backbone`."""
    if name or options:
        raise LesaError("student takes no name and no option: write `student` and give its weights")
    if weights is None:
        raise LesaError(
            "student needs weights: they are distributed only inside the default bundle; to train with this backbone, "
            "make student.safetensors with tools/default_backbone.py of the source"
        )
    module = Student()
    try:
        module.load_state_dict(read_state(weights))
    except RuntimeError as error:
        raise LesaError(f"{weights} is not the student: {str(error).strip().splitlines()[-1].strip()}") from None
    preprocessing = replace(LATER, short_side=SIDE, size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Backbone("student", module.eval(), GRID, SIZE, preprocessing, options, str(weights.absolute()))
