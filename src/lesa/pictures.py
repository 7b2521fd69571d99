"""Pictures of tags: the evidence over the photo, box, label and score; the same as JSON; a sheet of many photos.

All maps of a photo share one scale, which is printed below them. Full colour is the greatest evidence in the photo,
over all regions, the tagger's own labels and the labels asked for. So a word stays pale if the photo does not show it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from lesa.codes import Box, Codes
from lesa.drawing import (
    BACKGROUND,
    GAP,
    INK,
    NARROWEST,
    THUMBNAIL,
    beside,
    caption,
    fit_inside,
    framed,
    heat,
    legend,
    overlay,
    scaled,
    stacked,
)
from lesa.errors import LesaError
from lesa.files import replacing, write_json
from lesa.images import crop_box, open_photo
from lesa.tagger import Labels, Tag, Tagger

LARGEST = 1280
"""Pixels: at most, the longer side of a tag's picture."""
SHEET = "sheet.png"
SHEET_PHOTOS = 200
SHEET_TAGS, SHEET_BOX = 3, (190, 150)
"""For the sheet of many photos: tags per photo, and the box that each picture fits into."""
EVIDENCE = (
    "evidence: what a region alone says for the label, from 0 to {full:.2f} in units of the score; frame: the box"
)
EVIDENCE_OF_MANY = (
    "evidence: what a region alone says for the label, from 0 to the most that any label has in the photo"
)


@dataclass(frozen=True, eq=False)
class Shown:
    """A photo, reduced, with the tags that are drawn on it."""

    photo: Image.Image
    """Upright, at most `LARGEST` pixels long."""
    size: tuple[int, int]
    """The upright photo's own width and height in pixels."""
    tags: list[Tag]
    """The best first; boxes in pixels of the photo's own size."""
    crop: tuple[float, float, float, float]
    """The part that the model looks at, in pixels of the photo's own size."""
    full: float
    """The evidence that gets the full colour."""


def show_tags(
    tagger: Tagger, photos: Sequence[str], out: Path, labels: Labels, top: int, sheet: bool
) -> Iterator[tuple[str, Path | LesaError]]:
    """Draw photos and yield (photo, its picture); one that cannot be shown yields the reason.

    A photo NAME.jpg gives NAME.png with all tags, NAME.json, and NAME/1.png and so on, one picture per tag.

    Args:
        tagger: of a bundle, or of a run.
        photos: image files.
        out: the folder to write into; no file in it is replaced.
        labels: to choose from.
        top: tags per photo.
        sheet: whether to write `sheet.png` at the end, with all photos and their three best tags.

    Raises:
        LesaError: `sheet.png` exists already, or there are too many photos for it.
    """
    if sheet and (out / SHEET).exists():
        raise LesaError(f"{out / SHEET} exists already: give another folder")
    if sheet and len(photos) > SHEET_PHOTOS:
        raise LesaError(f"a sheet of {len(photos):,} photos would be too large: give at most {SHEET_PHOTOS}")
    rows: list[Image.Image] = []
    taken = {Path(SHEET).stem} if sheet else set()
    for photo, codes in tagger.stream(photos):
        try:
            if isinstance(codes, LesaError):
                raise codes
            shown = view_photo(tagger, str(photo), codes, labels, top)
            picture = _write_pictures(shown, str(photo), out / _free_name(Path(photo).stem, taken))
        except LesaError as error:
            yield str(photo), error
            continue
        if sheet:
            rows.append(_sheet_row(shown))
        yield str(photo), picture
    if rows:
        _save_picture(_contact_sheet(rows), out / SHEET)


def view_photo(tagger: Tagger, photo: str, codes: Codes, labels: Labels, top: int) -> Shown:
    """Return a photo with its `top` best tags, ready to be drawn.

    Raises:
        LesaError: the photo cannot be opened.
    """
    image = open_photo(photo)
    small = image.resize(fit_inside(image.size, (min(LARGEST, image.width), min(LARGEST, image.height))))
    crop = crop_box(codes.size, tagger.bundle.manifest.preprocessing)
    return Shown(small, codes.size, tagger.rank(codes, labels, top), crop, tagger.full_colour(codes, labels))


def _write_pictures(shown: Shown, photo: str, place: Path) -> Path:
    """Write a photo's pictures and JSON beside `place` and return the picture of all its tags.

    Raises:
        LesaError: one of them exists already.
    """
    picture, description = place.with_name(f"{place.name}.png"), place.with_name(f"{place.name}.json")
    for path in (picture, description, place):
        if path.exists():
            raise LesaError(f"{path} exists already: give another folder")
    for number, tag in enumerate(shown.tags, start=1):
        drawn = tag_picture(shown, tag, shown.photo.size)
        parts = [drawn, legend(EVIDENCE.format(full=shown.full), _covers_photo(shown))]
        _save_picture(stacked(parts, GAP // 2), place / f"{number}.png")
    _save_picture(photo_sheet(shown), picture)
    write_json(description, _description(shown, photo))
    return picture


def _description(shown: Shown, photo: str) -> dict[str, Any]:
    """Return the content of the pictures as JSON holds it."""
    tags = [tag.to_dict(with_evidence=True) for tag in shown.tags]
    # A file name that is not text cannot be written as UTF-8.
    name = photo.encode("utf-8", "backslashreplace").decode()
    crop = [round(x, 2) for x in shown.crop]
    entry = {"photo": name, "size": shown.size, "grid": shown.tags[0].evidence.shape, "crop": crop}
    return entry | {"full_colour": round(shown.full, 4), "tags": tags}


def photo_sheet(shown: Shown) -> Image.Image:
    """Draw a photo and its tags beside each other."""
    cells = [
        shown.photo.resize(fit_inside(shown.photo.size, THUMBNAIL)),
        *(tag_picture(shown, t, THUMBNAIL) for t in shown.tags),
    ]
    return framed(stacked([beside(cells), legend(EVIDENCE.format(full=shown.full), _covers_photo(shown))]))


def _sheet_row(shown: Shown) -> Image.Image:
    """Draw a photo and its best tags, as one row of the sheet of many photos."""
    cells = [tag_picture(shown, tag, SHEET_BOX) for tag in shown.tags[:SHEET_TAGS]]
    return _in_columns([shown.photo.resize(fit_inside(shown.photo.size, SHEET_BOX)), *cells], SHEET_BOX[0] + GAP)


def _contact_sheet(rows: Sequence[Image.Image]) -> Image.Image:
    """Draw the sheet of many photos: their rows, in two columns."""
    lines = [beside(rows[i : i + 2], 2 * GAP) for i in range(0, len(rows), 2)]
    return framed(stacked([*lines, legend(EVIDENCE_OF_MANY, whole=True)], GAP))


def tag_picture(shown: Shown, tag: Tag, limit: tuple[int, int]) -> Image.Image:
    """Draw a tag: the photo, fitted into `limit` pixels, with evidence and box; label and score below."""
    small = shown.photo.resize(fit_inside(shown.photo.size, limit))
    across, down = small.width / shown.size[0], small.height / shown.size[1]
    crop = scaled(shown.crop, across, down)
    size = (crop[2] - crop[0], crop[3] - crop[1])
    picture = overlay(small, heat(tag.evidence.ravel(), tag.evidence.shape, size, shown.full), crop)
    _draw_box(picture, scaled(tag.box, across, down))
    return stacked([picture, caption(tag.label, tag.text, max(small.width, NARROWEST))])


def _draw_box(picture: Image.Image, box: Box) -> None:
    """Draw a frame that is seen on any colour: a light line around a dark one."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(picture)
    wide = max(1, round(min(picture.size) / 150))
    draw.rectangle((left, top, right - 1, bottom - 1), outline=INK, width=2 * wide)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=BACKGROUND, width=wide)


def _in_columns(images: Sequence[Image.Image], width: int) -> Image.Image:
    """Join pictures from left to right, each in a column of the same width."""
    strip = Image.new("RGB", (width * (SHEET_TAGS + 1), max(image.height for image in images)), BACKGROUND)
    for column, image in enumerate(images):
        strip.paste(image, (column * width, 0))
    return strip


def _covers_photo(shown: Shown) -> bool:
    """Return whether the model looks at the whole photo."""
    return scaled(shown.crop, 1, 1) == (0, 0, *shown.size)


def _save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _free_name(stem: str, taken: set[str]) -> str:
    """Return the stem, with a number if a photo of another folder has that name."""
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name
