"""A contact sheet: the hits of a search as a grid of thumbnails, with the box of each hit."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lesa.drawing import BACKGROUND, QUIET, TEXT_SIZE, beside, caption, fit_inside, framed, scaled, stacked
from lesa.errors import LesaError
from lesa.images import open_photo
from lesa.index.search import Hit

COLUMNS = 5
SIDE = 240
"""The side in pixels of the square that a thumbnail fits into."""
FRAME = (255, 120, 0)


def contact_sheet(folder: Path, hits: Sequence[Hit]) -> Image.Image:
    """Draw the hits, the best one first; a photo that can no longer be read is left blank.

    Args:
        folder: the folder of the indexed photos.
        hits: the hits of a search, at least one.
    """
    cells = [
        stacked([_thumbnail(folder, hit), caption(f"{rank}  {Path(hit.photo).name}", f"{hit.score:.2f}", SIDE)])
        for rank, hit in enumerate(hits, start=1)
    ]
    return framed(stacked([beside(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)], gap=TEXT_SIZE))


def _thumbnail(folder: Path, hit: Hit) -> Image.Image:
    tile = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    draw = ImageDraw.Draw(tile)
    try:
        photo = open_photo(folder / hit.photo)
    except LesaError:
        draw.text((SIDE / 2, SIDE / 2), "cannot be read", QUIET, ImageFont.load_default(TEXT_SIZE), anchor="mm")
        return tile
    small = photo.resize(fit_inside(photo.size, (SIDE, SIDE)), Image.Resampling.LANCZOS)
    across, down = (SIDE - small.width) // 2, SIDE - small.height
    tile.paste(small, (across, down))
    left, top, right, bottom = scaled(hit.box, small.width / hit.size[0], small.height / hit.size[1])
    box = (across + left, down + top, across + right - 1, down + bottom - 1)
    draw.rectangle(box, outline=BACKGROUND, width=4)
    draw.rectangle(box, outline=FRAME, width=2)
    return tile
