"""Values of regions become heat, heat lies over the right part of the photo, and captions stay within their width."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFont

from lesa.drawing import TEXT_SIZE, heat, overlay, shortened
from lesa.errors import LesaError

GRID = (3, 4)


def peak(row: int, column: int) -> np.ndarray:
    attention = np.zeros(GRID, np.float32)
    attention[row, column] = 1
    return attention.ravel()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (2, 3)])
def test_heat_is_greatest_over_the_region_that_was_attended(row: int, column: int) -> None:
    map_HW = heat(peak(row, column), GRID, (80, 90))
    y, x = np.unravel_index(map_HW.argmax(), map_HW.shape)
    assert (y // 30, x // 20) == (row, column)
    assert map_HW.shape == (90, 80)
    assert map_HW.dtype == np.float32


@settings(max_examples=50)
@given(arrays(np.float32, 12, elements=st.floats(0, 1, width=32)), st.integers(1, 50), st.integers(1, 50))
def test_heat_lies_between_0_and_its_maximum_1(attention_R: np.ndarray, width: int, height: int) -> None:
    map_HW = heat(attention_R, GRID, (width, height))
    assert map_HW.shape == (height, width)
    assert map_HW.min() >= 0
    assert map_HW.max() <= 1
    if width >= 4 and height >= 3 and attention_R.max() > 1e-30:
        assert map_HW.max() == pytest.approx(1)


def test_the_scale_of_attention_does_not_matter() -> None:
    attention_R = np.random.default_rng(0).random(12)
    np.testing.assert_allclose(heat(attention_R, GRID, (40, 30)), heat(attention_R / 7, GRID, (40, 30)), atol=1e-6)


def test_uniform_attention_is_the_same_everywhere_and_none_is_0() -> None:
    np.testing.assert_allclose(heat(np.full(12, 1 / 12), GRID, (40, 30)), 1, atol=1e-6)
    assert not heat(np.zeros(12), GRID, (40, 30)).any()


def test_attention_that_does_not_fill_the_grid_is_refused() -> None:
    with pytest.raises(LesaError, match=r"shape \(12,\) do not fill a grid of 7 x 7 regions"):
        heat(peak(0, 0), (7, 7), (40, 30))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_an_overlay_is_as_large_as_its_photo_in_any_mode(mode: str) -> None:
    picture = overlay(Image.new(mode, (40, 30)), heat(peak(0, 0), GRID, (40, 30)))
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


def test_without_attention_the_grey_photo_shows_and_under_attention_it_shines_through() -> None:
    photo_HW3 = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8).repeat(3).reshape(30, 40, 3)
    photo = Image.fromarray(photo_HW3)
    for amount in (0.0, 1.0):
        picture_HW3 = np.asarray(overlay(photo, np.full((30, 40), amount, np.float32)))
        together = np.corrcoef(picture_HW3[..., 0].ravel(), photo_HW3[..., 0].ravel())[0, 1]
        assert together > 0.99
    assert np.ptp(picture_HW3.astype(int).mean(axis=(0, 1))) > 60, "great attention is coloured"


def test_heat_is_laid_over_the_box_and_the_rest_fades() -> None:
    photo = Image.new("RGB", (40, 30), (90, 90, 90))
    picture_HW3 = np.asarray(overlay(photo, np.ones((30, 30), np.float32), box=(5, 0, 35, 30))).astype(int)
    inside, outside = picture_HW3[:, 5:35], np.concatenate([picture_HW3[:, :5], picture_HW3[:, 35:]], axis=1)
    assert (np.ptp(inside, axis=2) > 60).all()
    assert (np.ptp(outside, axis=2) == 0).all()
    assert (outside > 150).all()


def test_a_map_of_another_size_than_its_box_is_refused() -> None:
    with pytest.raises(LesaError, match="heat map is 40 x 30 pixels, its box in the photo 30 x 30"):
        overlay(Image.new("RGB", (40, 30)), np.zeros((30, 40), np.float32), box=(5, 0, 35, 30))


def test_long_names_are_cut_and_letters_lose_what_the_font_has_not() -> None:
    font = ImageFont.load_default(TEXT_SIZE)
    short = shortened("american staffordshire terrier", 120, font)
    assert short.endswith("…")
    assert "american staffordshire terrier".startswith(short[:-1])
    assert font.getlength(short) <= 120
    assert shortened("ñandú", 120, font) == "nandu"
    assert shortened("two\n lines", 120, font) == "two lines"
