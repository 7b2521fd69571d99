"""Where a tag comes from: a value a region -> a heat map -> a picture of it over the photo.

Of a run the values are the winning attention's weights (`sheet`), of a bundle a label's evidence (`lesa.pictures`).
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lesa.errors import LesaError

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, as Pillow has it."""

RAMP = ((44, 5, 148), (133, 7, 167), (205, 74, 118), (247, 149, 64), (246, 232, 38))
"""Colours from little to much attention: five stops of the map `plasma`, whose lightness rises evenly."""
OPACITY, RISE = 0.62, 0.75
"""How opaque the colour is where attention is greatest, and the power of heat by which it becomes so."""
MUTED, DARKER = 0.75, 0.9
"""How much of the photo's own colour goes, and how much of its light stays: then colour means attention."""
FADED = 0.6
"""How far the photo fades where the backbone did not look."""

SEEN_TITLE = "labels that training photos carried (seen)"
ATTENTION = "attention of the label, little to much"
UNSEEN_TITLE = "labels that no training photo carried (unseen)"
PAPER, INK, QUIET = (255, 255, 255), (28, 30, 36), (112, 117, 128)
SEEN_COLOUR, UNSEEN_COLOUR = (37, 99, 175), (201, 84, 18)
MARGIN, GAP, TITLE, CAPTION = 28, 18, 40, 30
"""Pixels: around the sheet, between its parts, height of a row's title and of a caption."""
THUMBNAIL, NARROWEST, WIDEST_PHOTO = (280, 250), 168, 800
"""The box that a thumbnail fits into; the least width of its column, which a caption fills; the photo's greatest."""
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 18, 16, 14
"""Font sizes in pixels."""


@dataclass(frozen=True, eq=False)
class Tag:
    """A label of a photo and where it comes from."""

    name: str
    """The label."""
    score: float
    """Its score: an unbounded margin."""
    seen: bool
    """Whether training photos carried the label."""
    attention_R: NDArray[Any]
    """The winning attention's weights over the regions, row by row of the grid."""


def heat(
    attention_R: NDArray[Any], grid: tuple[int, int], size_WH: tuple[int, int], full: float | None = None
) -> NDArray[np.float32]:
    """Return attention or evidence over the grid as a smooth map `H, W` from 0 to 1; what is negative counts as 0.

    Bicubic enlargement treats a region as an area of the picture, not a point; its undershoot is cut at 0.

    Args:
        attention_R: values of the regions, row by row.
        grid: rows and columns of the grid, R = rows x columns.
        size_WH: width and height of the map in pixels.
        full: the value that becomes 1; the map's own maximum if not given, so that colours compare places within one
            map, but not two maps.

    Raises:
        LesaError: the weights do not fill the grid.
    """
    rows, columns = grid
    weights_R = np.asarray(attention_R, dtype=np.float32).clip(min=0)
    if weights_R.shape != (rows * columns,):
        raise LesaError(f"attention of shape {weights_R.shape} does not fill a grid of {rows} x {columns} regions")
    small = Image.fromarray(weights_R.reshape(rows, columns))
    map_HW = np.asarray(small.resize(size_WH, Image.Resampling.BICUBIC)).clip(min=0)
    scaled_HW: NDArray[np.float32] = map_HW / np.maximum(full or map_HW.max(), np.finfo(np.float32).tiny)
    return scaled_HW.clip(max=1)


def overlay(photo: Image.Image, heat_HW: NDArray[np.float32], box: Box | None = None) -> Image.Image:
    """Lay a heat map over a muted photo: the more attention, the lighter and the more opaque the colour.

    Args:
        photo: any photo.
        heat_HW: 0 to 1; as large as the box.
        box: the part of the photo that the backbone saw (the whole photo if not given); the rest fades.

    Raises:
        LesaError: the map is not as large as the box.
    """
    left, top, right, bottom = box or (0, 0, *photo.size)
    if heat_HW.shape != (bottom - top, right - left):
        raise LesaError(
            f"the heat map is {heat_HW.shape[1]} x {heat_HW.shape[0]} pixels, "
            f"its place in the photo {right - left} x {bottom - top}: make it with that size"
        )
    photo = photo.convert("RGB")
    grey = Image.blend(photo, photo.convert("L").convert("RGB"), MUTED)
    part_HW3 = DARKER * np.asarray(grey.crop((left, top, right, bottom)), dtype=np.float32)
    opacity_HW1 = OPACITY * heat_HW[:, :, None] ** RISE
    warm_HW3 = part_HW3 + opacity_HW1 * (_colours(heat_HW) - part_HW3)
    picture = Image.blend(grey, Image.new("RGB", photo.size, PAPER), FADED)
    picture.paste(Image.fromarray(warm_HW3.round().astype(np.uint8)), (left, top))
    return picture


def _colours(heat_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the ramp's colours, `H, W, 3`, 0 to 255."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(heat_HW, stops, [colour[c] for colour in RAMP]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def sheet(
    photo: Image.Image,
    tags: Sequence[Tag],
    *,
    grid: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Draw a photo beside a row of its seen and a row of its unseen labels, each with the map of its attention.

    Args:
        photo: any photo.
        tags: what to draw, best first; a row without tags is left out.
        grid: rows and columns of the regions.
        box: the part of the photo that the backbone saw, in its pixels (the whole photo if not given).

    Raises:
        LesaError: there is no tag, or an attention does not fill the grid.
    """
    photo = photo.convert("RGB")
    small = photo.resize(fit(photo.size, THUMBNAIL), Image.Resampling.LANCZOS)
    small_box = scaled(box or (0, 0, *photo.size), small.width / photo.width, small.height / photo.height)
    rows = []
    for seen, title, colour in ((True, SEEN_TITLE, SEEN_COLOUR), (False, UNSEEN_TITLE, UNSEEN_COLOUR)):
        if cells := [_cell(small, tag, grid, small_box) for tag in tags if tag.seen == seen]:
            rows.append(stacked([_heading(title, colour), beside(cells)]))
    if not rows:
        raise LesaError("there is no tag to draw: ask for at least one label")
    labels = stacked(rows, GAP)
    large = photo.resize(fit(photo.size, (WIDEST_PHOTO, labels.height)), Image.Resampling.LANCZOS)
    return framed(stacked([beside([large, labels], 2 * GAP), legend(ATTENTION, small_box == (0, 0, *small.size))]))


def _cell(small: Image.Image, tag: Tag, grid: tuple[int, int], box: Box) -> Image.Image:
    """Draw one label: the small photo with the map of its attention, name and score below."""
    left, top, right, bottom = box
    picture = overlay(small, heat(tag.attention_R, grid, (right - left, bottom - top)), box)
    return stacked([picture, caption(tag.name, f"{tag.score:.2f}", max(small.width, NARROWEST))])


def caption(name: str, number: str, width: int) -> Image.Image:
    """Write a name at the left and a number at the right; a name that is too long ends in an ellipsis."""
    strip = Image.new("RGB", (width, CAPTION), PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(TEXT_SIZE)
    name = shortened(name, width - font.getlength(number) - TEXT_SIZE, font)
    draw.text((0, CAPTION / 2), name, INK, font, anchor="lm")
    draw.text((width, CAPTION / 2), number, QUIET, font, anchor="rm")
    return strip


def shortened(name: str, width: float, font: Any) -> str:
    """Return the name on one line, without accents, cut to `width` pixels."""
    # The font that Pillow carries knows no accents; letters without them read better than empty boxes.
    name = "".join(c for c in unicodedata.normalize("NFKD", " ".join(name.split())) if not unicodedata.combining(c))
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(f"{name}…") > width:
        name = name[:-1]
    return f"{name.rstrip()}…"


def _heading(text: str, colour: tuple[int, int, int]) -> Image.Image:
    """Write a row's title behind a bar of its colour."""
    font = ImageFont.load_default(TITLE_SIZE)
    strip = Image.new("RGB", (round(font.getlength(text)) + 16, TITLE), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.rectangle((0, 2, 4, TITLE_SIZE + 6), fill=colour)
    draw.text((14, TITLE_SIZE / 2 + 4), text, colour, font, anchor="lm")
    return strip


def legend(words: str, whole: bool) -> Image.Image:
    """Explain the colours, and the faded part where the backbone did not see the whole photo."""
    font = ImageFont.load_default(SMALL_SIZE)
    rise_HW = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (12, 1))
    bar = overlay(Image.new("RGB", (120, 12), QUIET), rise_HW)
    words += "" if whole else "; faded: not seen by the model"
    strip = Image.new("RGB", (132 + round(font.getlength(words)), CAPTION), PAPER)
    strip.paste(bar, (0, CAPTION // 2 - 6))
    ImageDraw.Draw(strip).text((130, CAPTION / 2), words, QUIET, font, anchor="lm")
    return strip


def fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
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
    joined, left = Image.new("RGB", size, PAPER), 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + gap
    return joined


def stacked(images: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Join pictures from top to bottom, their left edges in line."""
    size = max(image.width for image in images), sum(image.height + gap for image in images) - gap
    joined, top = Image.new("RGB", size, PAPER), 0
    for image in images:
        joined.paste(image, (0, top))
        top += image.height + gap
    return joined


def framed(image: Image.Image) -> Image.Image:
    """Put a margin around a picture."""
    frame = Image.new("RGB", (image.width + 2 * MARGIN, image.height + 2 * MARGIN), PAPER)
    frame.paste(image, (MARGIN, MARGIN))
    return frame
