"""Photos are opened upright and safely, become the same pixels as in other libraries, and are listed."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesa.errors import LesaError
from lesa.images import Preprocessing, crop_box, list_photos, open_photo, to_pixels

PLAIN = Preprocessing("squash", 8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bilinear")
CROP = Preprocessing("crop", 16, 12, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1 / 255, "bicubic")
# How a camera turns an upright photo for each value of the orientation.
TURNED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright.transpose(1, 0, 2), 2),
    8: lambda upright: np.rot90(upright, 3),
}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)
    return path


@pytest.mark.parametrize("orientation", TURNED)
def test_a_photo_comes_upright(tmp_path: Path, orientation: int) -> None:
    upright = noise(5, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", TURNED[orientation](upright), exif=exif)
    assert np.array_equal(np.asarray(open_photo(path)), upright)


@pytest.mark.shared
def test_a_real_photo_comes_upright(tmp_path: Path, shared: Path) -> None:
    source = sorted((shared / "data" / "photos").glob("*.jpg"))[0]
    upright = np.asarray(Image.open(source))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", np.rot90(upright), exif=exif, quality=100, subsampling=0)
    assert np.abs(np.asarray(open_photo(path)).astype(int) - upright).mean() < 1


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "YCbCr"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.tif"
    Image.fromarray(noise(6, 7)).convert(mode).save(path)
    photo = open_photo(path)
    assert (photo.mode, photo.size) == ("RGB", (7, 6))


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    pixels[..., 3] = [0, 0, 255, 255]
    seen = np.asarray(open_photo(save(tmp_path / "photo.png", pixels)))
    assert (seen[:, :2] == 255).all()
    assert np.array_equal(seen[:, 2:], pixels[:, 2:, :3])


def test_a_palette_with_transparency_is_read(tmp_path: Path) -> None:
    image = Image.fromarray(noise(4, 4)).quantize(16)
    image.save(tmp_path / "photo.png", transparency=bytes(range(16)))
    assert open_photo(tmp_path / "photo.png").mode == "RGB"


def test_a_file_that_is_no_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a photo")
    with pytest.raises(LesaError, match=r"notes\.jpg is not a photo"):
        open_photo(tmp_path / "notes.jpg")
    with pytest.raises(LesaError, match=r"gone\.jpg does not exist"):
        open_photo(tmp_path / "gone.jpg")
    with pytest.raises(LesaError, match="cannot be read"):
        open_photo(tmp_path)


@given(st.data())
def test_a_damaged_photo_is_an_error_or_a_photo_but_no_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(["jpg", "png", "webp", "tif", "bmp"]))
    path = save(folder / f"photo.{suffix}", noise(20, 30))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(LesaError):
        assert open_photo(path).mode == "RGB"


def test_a_cut_photo_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.jpg", noise(64, 64))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LesaError, match=r"cut\.jpg cannot be read"):
        open_photo(path)


@pytest.mark.parametrize("side", [11, 15, 30])
def test_more_pixels_than_pillows_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    path = save(tmp_path / "bomb.png", noise(side, side))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120)
    with pytest.raises(LesaError, match=r"bomb\.png .*pixels"):
        open_photo(path)


def test_a_photo_too_narrow_to_cut_is_refused_before_it_grows() -> None:
    narrow = Image.new("RGB", (1, 2_000_000))
    with pytest.raises(LesaError, match="1 x 2000000 pixels is too narrow"):
        to_pixels(narrow, CROP)
    assert to_pixels(narrow.crop((0, 0, 1, 50)), PLAIN).shape == (3, 8, 8)


def test_squash_at_the_exact_size_keeps_every_value() -> None:
    pixels = noise(8, 8)
    prepared = to_pixels(Image.fromarray(pixels), PLAIN)
    assert prepared.dtype == np.float32
    assert np.array_equal(prepared, pixels.transpose(2, 0, 1))


def test_values_are_scaled_then_normalised() -> None:
    settings = Preprocessing("squash", 8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1 / 255, "bilinear")
    pixels = noise(8, 8)
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(to_pixels(Image.fromarray(pixels), settings), expected.transpose(2, 0, 1), atol=1e-6)


def test_crop_takes_the_centre() -> None:
    # Already 16 pixels short: columns 4 to 16 of 20, rows 2 to 14 of 16.
    pixels = noise(16, 20)
    settings = Preprocessing("crop", 16, 12, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bicubic")
    expected = pixels[2:14, 4:16].transpose(2, 0, 1)
    assert np.array_equal(to_pixels(Image.fromarray(pixels), settings), expected)


def test_squash_takes_the_whole_photo() -> None:
    left_black = np.repeat(np.array([[[0] * 3] * 50 + [[255] * 3] * 50], dtype=np.uint8), 20, axis=0)
    prepared = to_pixels(Image.fromarray(left_black), PLAIN)
    assert (prepared[:, :, :3] == 0).all()
    assert (prepared[:, :, 5:] == 255).all()


@given(st.integers(1, 90), st.integers(1, 90))
def test_crop_of_any_photo_is_a_square_inside_it(width: int, height: int) -> None:
    assert to_pixels(Image.new("RGB", (width, height)), CROP).shape == (3, 12, 12)
    left, top, right, bottom = crop_box((width, height), CROP)
    assert 0 <= left < right <= width + 1e-6
    assert 0 <= top < bottom <= height + 1e-6
    # Three quarters of the short side; the long side is rounded to whole pixels.
    assert min(right - left, bottom - top) == pytest.approx(0.75 * min(width, height), rel=0.07)


def test_squash_sees_all() -> None:
    assert crop_box((30, 17), PLAIN) == (0, 0, 30, 17)


@pytest.mark.shared
def test_pixels_agree_with_transformers(shared: Path) -> None:
    from transformers import AutoImageProcessor

    from lesa.learn.regions.hugging_face import read_preprocessing

    folder = shared / "weights" / "mobilenet_v2_1.0_224"
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    settings = read_preprocessing(json.loads((folder / "preprocessor_config.json").read_text()), "mobilenet")
    photo = open_photo(sorted((shared / "data" / "photos").glob("*.jpg"))[0])
    for size in [photo.size, (613, 457), (333, 501), (100, 70)]:
        image = photo.resize(size)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(to_pixels(image, settings), expected, atol=1e-6)


def test_a_square_larger_than_the_short_side_is_refused() -> None:
    with pytest.raises(LesaError, match="224 pixels cannot be cut out of a short side of 200"):
        Preprocessing("crop", 200, 224, (0, 0, 0), (1, 1, 1), 1.0, "bilinear")


def test_preprocessing_survives_json() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(CROP.to_dict()))) == CROP


def test_photos_are_listed_sorted_with_folders_and_without_hidden_files(tmp_path: Path) -> None:
    for name in [
        "b.JPG",
        "a/z.png",
        "a/a.webp",
        ".hidden.jpg",
        "a/.x/c.jpg",
        "notes.txt",
        "a/._z.png",
        "é \u202f.tiff",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_photos(tmp_path) == ["a/a.webp", "a/z.png", "b.JPG", "é \u202f.tiff"]


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LesaError, match="holds no photo"):
        list_photos(tmp_path)
    with pytest.raises(LesaError, match="is not a folder"):
        list_photos(tmp_path / "gone")


def test_a_folder_named_like_a_photo_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "album.jpg").mkdir()
    shutil.copy(save(tmp_path / "a.png", noise(2, 2)), tmp_path / "album.jpg" / "b.png")
    assert list_photos(tmp_path) == ["a.png", "album.jpg/b.png"]
