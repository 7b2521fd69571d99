"""Parts of pictures: one value per region -> a heat map -> a picture of it over the photo; captions; layout."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lesa.codes import Box
from lesa.errors import LesaError

RAMP = ((44, 5, 148), (133, 7, 167), (205, 74, 118), (247, 149, 64), (246, 232, 38))
"""Colours from little to much evidence: five stops of the map `plasma`, whose lightness rises evenly."""
OPACITY, RISE = 0.62, 0.75
"""The opacity of the colour where heat is greatest, and the power of heat by which the opacity rises."""
MUTED, DARKER = 0.75, 0.9
"""The share of the photo's own colour that is removed, and the share of its light that stays: then only evidence has
colour."""
FADED = 0.6
"""How far the photo fades outside the part that the model looks at."""

BACKGROUND, INK, QUIET = (255, 255, 255), (28, 30, 36), (112, 117, 128)
MARGIN, GAP, CAPTION = 28, 18, 30
"""Pixels: the margin around a sheet, the gap between its parts, the height of a caption."""
THUMBNAIL, NARROWEST = (280, 250), 168
"""Pixels: the box that a thumbnail fits into, and the least width of its caption."""
TEXT_SIZE, SMALL_SIZE = 16, 14
"""Font sizes in pixels."""


def heat(
    values_R: NDArray[Any], grid: tuple[int, int], size_WH: tuple[int, int], full: float | None = None
) -> NDArray[np.float32]:
    """Return the values of the regions as a smooth map `H, W` from 0 to 1; a negative value becomes 0.

    Bicubic enlargement treats a region as an area of the picture, not a point; its undershoot is cut at 0.

    Args:
        values_R: one value per region, row by row: evidence, or attention.
        grid: rows and columns of the grid, R = rows x columns.
        size_WH: width and height of the map in pixels.
        full: the value that becomes 1. If it is not given, it is the map's own maximum: then colours compare places
            within one map, but not two maps.

    Raises:
        LesaError: the values do not fill the grid.
    """
    rows, columns = grid
    positive_R = np.asarray(values_R, dtype=np.float32).clip(min=0)
    if positive_R.shape != (rows * columns,):
        raise LesaError(f"values of shape {positive_R.shape} do not fill a grid of {rows} x {columns} regions")
    small = Image.fromarray(positive_R.reshape(rows, columns))
    map_HW = np.asarray(small.resize(size_WH, Image.Resampling.BICUBIC)).clip(min=0)
    scaled_HW: NDArray[np.float32] = map_HW / np.maximum(full or map_HW.max(), np.finfo(np.float32).tiny)
    return scaled_HW.clip(max=1)


def overlay(photo: Image.Image, heat_HW: NDArray[np.float32], box: Box | None = None) -> Image.Image:
    """Lay a heat map over a muted photo: the more heat, the lighter and the more opaque the colour.

    Args:
        photo: any photo.
        heat_HW: 0 to 1; as large as the box.
        box: the part of the photo that the model looks at (the whole photo if not given); the rest fades.

    Raises:
        LesaError: the map is not as large as the box.
    """
    left, top, right, bottom = box or (0, 0, *photo.size)
    if heat_HW.shape != (bottom - top, right - left):
        raise LesaError(
            f"the heat map is {heat_HW.shape[1]} x {heat_HW.shape[0]} pixels, "
            f"its box in the photo {right - left} x {bottom - top}: make the map as large as the box"
        )
    photo = photo.convert("RGB")
    grey = Image.blend(photo, photo.convert("L").convert("RGB"), MUTED)
    part_HW3 = DARKER * np.asarray(grey.crop((left, top, right, bottom)), dtype=np.float32)
    opacity_HW1 = OPACITY * heat_HW[:, :, None] ** RISE
    warm_HW3 = part_HW3 + opacity_HW1 * (_colours(heat_HW) - part_HW3)
    picture = Image.blend(grey, Image.new("RGB", photo.size, BACKGROUND), FADED)
    picture.paste(Image.fromarray(warm_HW3.round().astype(np.uint8)), (left, top))
    return picture


def _colours(heat_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ramp's colours, `H, W, 3`, 0 to 255."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(heat_HW, stops, [colour[c] for colour in RAMP]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def caption(name: str, number: str, width: int) -> Image.Image:
    """Write a name on the left and a number on the right; a name that is too long ends in an ellipsis."""
    strip = Image.new("RGB", (width, CAPTION), BACKGROUND)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TEXT_SIZE)
    name = shortened(name, width - font.getlength(number) - TEXT_SIZE, font)
    draw.text((0, CAPTION / 2), name, INK, font, anchor="lm")
    draw.text((width, CAPTION / 2), number, QUIET, font, anchor="rm")
    return strip


def shortened(name: str, width: float, font: Any) -> str:
    """Return the name on one line, without accents, cut to `width` pixels."""
    # Pillow's font has no accents; letters without them are easier to read than empty boxes.
    name = "".join(c for c in unicodedata.normalize("NFKD", " ".join(name.split())) if not unicodedata.combining(c))
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(f"{name}…") > width:
        name = name[:-1]
    return f"{name.rstrip()}…"


def legend(words: str, whole: bool) -> Image.Image:
    """Explain the colours and, unless the model looks at the whole photo, the faded part."""
    font = ImageFont.load_default(SMALL_SIZE)
    rise_HW = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (12, 1))
    bar = overlay(Image.new("RGB", (120, 12), QUIET), rise_HW)
    words += "" if whole else "; faded: the model does not look there"
    strip = Image.new("RGB", (132 + round(font.getlength(words)), CAPTION), BACKGROUND)
    strip.paste(bar, (0, CAPTION // 2 - 6))
    ImageDraw.Draw(strip).text((130, CAPTION / 2), words, QUIET, font, anchor="lm")
    return strip


def fit_inside(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return `size` enlarged or reduced so that it just fits into `box`, its proportions kept."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(box: tuple[float, float, float, float], across: float, down: float) -> Box:
    """Return the box, in whole pixels, in a photo of another size; at least one pixel remains."""
    left, top = round(box[0] * across), round(box[1] * down)
    return left, top, max(left + 1, round(box[2] * across)), max(top + 1, round(box[3] * down))


def beside(images: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Join pictures from left to right, their tops in line."""
    size = sum(image.width + gap for image in images) - gap, max(image.height for image in images)
    joined, left = Image.new("RGB", size, BACKGROUND), 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + gap
    return joined


def stacked(images: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Join pictures from top to bottom, their left edges in line."""
    size = max(image.width for image in images), sum(image.height + gap for image in images) - gap
    joined, top = Image.new("RGB", size, BACKGROUND), 0
    for image in images:
        joined.paste(image, (0, top))
        top += image.height + gap
    return joined


def framed(image: Image.Image) -> Image.Image:
    """Put a margin around a picture."""
    frame = Image.new("RGB", (image.width + 2 * MARGIN, image.height + 2 * MARGIN), BACKGROUND)
    frame.paste(image, (MARGIN, MARGIN))
    return frame
