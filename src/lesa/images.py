"""Photos: opened safely, turned upright, and turned into the pixels that a network expects. NumPy and Pillow only."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lesa.errors import LesaError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that may open a photo, whatever its name is. Others are rare, or start a program (EPS)."""
DECODERS = 4
"""Number of threads that decode photos; Pillow releases Python's lock while it decodes."""
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Photo = TypeVar("Photo")
Decoded = TypeVar("Decoded")


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes a square of pixels.

    Raises:
        LesaError: the short side is smaller than the square.
    """

    fit: Literal["crop", "squash"]
    """`crop` takes the centre and keeps the aspect ratio; `squash` takes the whole photo and changes the ratio."""
    short_side: int
    """For `crop`: the photo is first resized so that its shorter side has this many pixels."""
    size: int
    """Side of the square in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from red, green and blue after scaling."""
    std: tuple[float, float, float]
    """Red, green and blue are divided by these numbers after that."""
    scale: float
    """The factor of the values 0-255: 1/255 or 1."""
    resample: Literal["bilinear", "bicubic"]
    """Pillow's resizing filter (with antialiasing)."""

    def __post_init__(self) -> None:
        """Refuse a square that does not fit."""
        if self.fit == "crop" and self.short_side < self.size:
            raise LesaError(f"a square of {self.size} pixels cannot be cut out of a short side of {self.short_side}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild it from the result of `to_dict`, also after JSON turned tuples into lists."""
        return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def list_photos(folder: Path | str) -> list[str]:
    """Return the sorted paths of the photos below a folder, relative to it, with forward slashes; no hidden files.

    Raises:
        LesaError: the folder does not exist, or contains no photo.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LesaError(f"{folder} is not a folder: give the folder that holds the photos")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    photos = sorted(name for name in names if "/." not in f"/{name}")
    if not photos:
        raise LesaError(f"{folder} holds no photo: none of its files ends in {', '.join(sorted(SUFFIXES))}")
    return photos


def open_photo(photo: Path | str | BinaryIO, name: str = "") -> Image.Image:
    """Open a photo as RGB, turned upright by its EXIF orientation; transparent parts become white.

    Args:
        photo: its path, or its bytes in a file object.
        name: its name in messages; the path if not given.

    Raises:
        LesaError: the file does not exist, is not a photo, is damaged, or has more pixels than Pillow's limit.
    """
    name = name or str(photo)
    try:
        with Image.open(photo, formats=_formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise LesaError(f"{name} is {image.width} x {image.height} pixels, more than the limit of {limit}")
            return _rgb(ImageOps.exif_transpose(image))
    except LesaError:
        raise
    except FileNotFoundError:
        raise LesaError(f"{name} does not exist") from None
    except UnidentifiedImageError:
        raise LesaError(f"{name} is not a photo that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LesaError(f"{name} has too many pixels: {error}") from None
    except Exception as error:
        # Pillow's decoders raise exceptions of many types on damaged files.
        raise LesaError(f"{name} cannot be read: {error}") from None


@lru_cache
def _formats() -> tuple[str, ...]:
    """Return the `FORMATS` that the installed Pillow supports."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn an RGB photo into pixels for a network.

    Returns:
        float32 `3, H, W` with H = W = `preprocessing.size`: (value * scale - mean) / std.

    Raises:
        LesaError: the photo is so narrow that resizing it would exceed Pillow's limit.
    """
    width, height, left, top = _place_square(image.size, preprocessing)
    if image.size != (width, height):
        image = image.resize((width, height), RESAMPLE[preprocessing.resample])
    side = preprocessing.size
    image = image.crop((left, top, left + side, top + side))
    factor = np.float32(preprocessing.scale) / np.array(preprocessing.std, dtype=np.float32)
    offset = np.array(preprocessing.mean, dtype=np.float32) / np.array(preprocessing.std, dtype=np.float32)
    pixels_HW3 = np.asarray(image, dtype=np.float32) * factor - offset
    return np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1))


def decode_ahead(
    photos: Iterable[Photo], decode: Callable[[Photo], Decoded], ahead: int
) -> Iterator[tuple[Photo, Decoded | LesaError]]:
    """Yield (photo, decoded) in order; threads decode at most `ahead` photos before they are needed.

    Args:
        photos: the arguments of `decode`, such as paths.
        decode: reads one photo. If it raises a LesaError, the error is yielded in place of the result.
        ahead: greatest number of photos that are decoded but not yet used.
    """

    def attempt(photo: Photo) -> tuple[Photo, Decoded | LesaError]:
        try:
            return photo, decode(photo)
        except LesaError as problem:
            return photo, problem

    with ThreadPoolExecutor(DECODERS) as pool:
        waiting: deque[Future[tuple[Photo, Decoded | LesaError]]] = deque()
        for photo in photos:
            waiting.append(pool.submit(attempt, photo))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return the part of an upright photo that becomes the network's square.

    Args:
        size: the photo's width and height in pixels.
        preprocessing: how the photo is fitted.

    Returns:
        left, top, right, bottom in the photo's pixels.
    """
    width, height, left, top = _place_square(size, preprocessing)
    across, down = size[0] / width, size[1] / height
    side = preprocessing.size
    return left * across, top * down, (left + side) * across, (top + side) * down


def _place_square(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return width and height after resizing, then left and top of the square in the resized photo."""
    side = preprocessing.size
    if preprocessing.fit == "squash":
        return side, side, 0, 0
    short = min(size)
    # Rounded down, as torchvision and transformers do.
    width, height = (preprocessing.short_side * length // short for length in size)
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise LesaError(f"a photo of {size[0]} x {size[1]} pixels is too narrow to cut out a square: use fit `squash`")
    return width, height, (width - side) // 2, (height - side) // 2
