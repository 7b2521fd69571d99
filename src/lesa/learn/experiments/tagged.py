"""Photos that the bundle in the package tags, for the report: tags, which of them are right, evidence, author."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image

from lesa.annotations import Row, read_rows
from lesa.drawing import beside, fit_inside
from lesa.pictures import Shown, tag_picture, view_photo
from lesa.tagger import Tagger

TOP = 3
"""Tags per photo, at most."""
BOX = (225, 170)
"""Pixels: the box that a photo, and the evidence beside it, fit into."""


@dataclass(frozen=True)
class TaggedPhoto:
    """A photo with the tags that `lesa tag` gives it."""

    name: str
    credit: str
    """Author and licence, as the file itself names them (EXIF)."""
    tags: list[tuple[str, str, bool]]
    """Label, probability as text, and whether the label is right; the best first."""
    picture: str
    """The photo, and beside it the evidence for the first tag: a data URI."""

    @property
    def first_is_right(self) -> bool:
        """Whether there is a tag and the first one is right."""
        return bool(self.tags) and self.tags[0][2]


def tag_photos(labelled: Path) -> list[TaggedPhoto]:
    """Tag the photos of a file of labels with the bundle in the package.

    Args:
        labelled: a `.csv` or `.jsonl` file (see `lesa.annotations`), beside the photos. A tag is right if it is there.

    Raises:
        LesaError: the file or a photo cannot be read.
    """
    tagger = Tagger("default")
    return [_tag_photo(tagger, labelled.parent / row.photo, row) for row in read_rows(labelled)]


def _tag_photo(tagger: Tagger, photo: Path, row: Row) -> TaggedPhoto:
    labels, codes = tagger.labels(), tagger.codes(photo)
    _, threshold = tagger.limits(labels)
    tags = tagger.rank(codes, labels, TOP, threshold)
    shown = view_photo(tagger, str(photo), codes, labels, top=1)
    return TaggedPhoto(
        name=row.photo,
        credit=_credit(shown.photo),
        tags=[(tag.label, tag.text, tag.label in row.present) for tag in tags],
        picture=_data_uri(_draw(shown, bool(tags))),
    )


def _draw(shown: Shown, has_tag: bool) -> Image.Image:
    """Draw the photo and, if it has a tag, the evidence for it."""
    parts = [shown.photo.resize(fit_inside(shown.photo.size, BOX))]
    return beside([*parts, tag_picture(shown, shown.tags[0], BOX)] if has_tag else parts)


def _credit(photo: Image.Image) -> str:
    """Return author and licence from the photo's EXIF data; empty if they are not there."""
    exif = photo.getexif()
    found = (exif.get(tag) for tag in (ExifTags.Base.Artist, ExifTags.Base.Copyright))
    return ", ".join(str(each) for each in found if each)


def _data_uri(picture: Image.Image) -> str:
    content = BytesIO()
    picture.save(content, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + b64encode(content.getvalue()).decode()
