"""One decoder: every grey, deep or transparent picture becomes the 8-bit RGB that arithmetic says, or one line."""

import io
import os

import numpy as np
import pytest
from bad_inputs.images import png
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stablevelocity.data.decoding import center_crop, decode

# A few examples, the same ones each time; FUZZ=10000 is a longer hunt with others.
FUZZ = int(os.environ.get("FUZZ", "0"))
EXAMPLES = settings(max_examples=FUZZ or 25, derandomize=not FUZZ, deadline=None, database=None)

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    found = decode(content, None)
    assert isinstance(found, np.ndarray), found
    return found.astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_every_value_of_16_bit_grey_is_divided_by_257(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    truth = np.round(ramp / 257)
    assert np.array_equal(pixels(encoded(Image.fromarray(ramp), kind)), np.repeat(truth[..., None], 3, axis=2))


def test_big_endian_and_compressed_16_bit_tiffs_are_the_same() -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    truth = np.round(ramp / 257)
    assert np.array_equal(pixels(encoded(Image.fromarray(ramp), "TIFF", compression="tiff_lzw"))[..., 0], truth)
    assert np.array_equal(pixels(encoded(Image.fromarray(ramp.astype(">u2")), "TIFF"))[..., 0], truth)


def test_a_pgm_of_another_range_is_scaled_to_it() -> None:
    """12 bits in a PGM, which says so: 4095 is white."""
    values = np.array([0, 1, 2048, 4095], ">u2")
    assert pixels(b"P5\n4 1\n4095\n" + values.tobytes())[0, :, 0].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_colours_are_laid_on_white_for_every_alpha(kind: str) -> None:
    alpha, colour = np.meshgrid(np.arange(256), np.arange(256))
    image = Image.fromarray(np.stack([colour, colour, colour, alpha], 2).astype(np.uint8))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    truth = np.round((colour * alpha + 255 * (255 - alpha)) / 255)
    assert np.array_equal(pixels(encoded(image, kind, **options)), np.repeat(truth[..., None], 3, axis=2))
    if kind == "PNG":
        assert np.array_equal(pixels(encoded(image.convert("LA"), kind))[..., 0], truth)


def test_transparency_by_a_key_or_in_a_palette_is_laid_on_white() -> None:
    """Grey, colour, 16-bit grey and palette with one transparent value; a palette with an alpha per colour; GIF."""
    grey = np.array([[0, 100, 200]], np.uint8)
    shown = [[0, 0, 0], [255, 255, 255], [200, 200, 200]]
    assert pixels(encoded(Image.fromarray(grey), "PNG", transparency=100))[0].tolist() == shown
    colours = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    assert pixels(encoded(colours, "PNG", transparency=(100, 100, 100)))[0].tolist() == shown
    deep = b"\0" + (grey.astype(">u2") * 257).tobytes()
    assert pixels(png(3, 1, 16, 0, deep))[0, :, 0].tolist() == [0, 100, 200]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200])
    for content in (encoded(palette, "PNG", transparency=1), encoded(palette, "GIF", transparency=1)):
        assert pixels(content)[0].tolist() == shown
    half = encoded(palette, "PNG", transparency=bytes([255, 0, 51]))
    assert pixels(half)[0].tolist() == [[0, 0, 0], [255, 255, 255], [244, 244, 244]]  # (200 * 51 + 255 * 204) / 255


def test_16_bit_grey_with_a_transparent_value() -> None:
    from bad_inputs.images import chunk

    values = np.array([[0, 25_700, 51_400]], ">u2")
    content = png(3, 1, 16, 0, b"\0" + values.tobytes(), chunk(b"tRNS", (25_700).to_bytes(2, "big")))
    assert pixels(content)[0, :, 0].tolist() == [0, 255, 200]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_what_is_neither_deep_nor_transparent_is_pillows_own_rgb(mode: str) -> None:
    image = Image.effect_noise((9, 7), 80).convert("RGB").convert(mode)
    assert np.array_equal(pixels(encoded(image, "TIFF")), np.asarray(image.convert("RGB")))


def test_the_rotation_and_the_profile_of_a_camera_are_not_applied() -> None:
    image = Image.effect_noise((8, 5), 80).convert("RGB")
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    content = encoded(image, "PNG", exif=exif, icc_profile=os.urandom(2**20))
    assert np.array_equal(pixels(content), np.asarray(image))


def test_a_picture_of_one_pixel_fills_the_crop() -> None:
    found = decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), 8)
    assert np.array_equal(found, np.broadcast_to(np.array([1, 2, 3], np.uint8), (8, 8, 3)))


def test_the_reason_is_the_same_at_each_try() -> None:
    """It stands in the shard's header, so it is part of its checksum."""
    for content in (b"no picture", b"", encoded(Image.effect_noise((9, 9), 80), "PNG")[:80], b"II*\0" + b"\xff" * 60):
        first = decode(content, 8)
        kept = [bytearray(1000) for _ in range(50)]  # what is made next lies elsewhere in memory
        assert isinstance(first, str)
        assert decode(bytes(bytearray(content)), 8) == first
        assert "0x" not in first
        assert kept


@EXAMPLES
@given(
    content=st.binary(max_size=300), kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF"])
)
def test_any_bytes_are_a_picture_or_one_line(content: bytes, kind: str) -> None:
    """Bytes alone, and behind the beginning of a picture of each format."""
    start = encoded(Image.effect_noise((9, 7), 80).convert("RGB"), kind)
    for tried in (content, start[: len(start) // 2] + content, content[:20] + start[20:]):
        found = decode(tried, 8)
        if isinstance(found, str):
            assert found.isprintable()
            assert 0 < len(found) <= 200
        else:
            assert (found.shape, found.dtype) == ((8, 8, 3), np.uint8)


@EXAMPLES
@given(values=SIDES.flatmap(lambda sides: arrays(np.uint8, (*sides, 4))))
def test_any_picture_is_the_same_in_every_lossless_format(values: np.ndarray) -> None:
    image = Image.fromarray(values)
    alpha = values[..., 3:].astype(int)
    truth = np.round((values[..., :3] * alpha + 255 * (255 - alpha)) / 255)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert np.array_equal(pixels(encoded(image, kind, **options)), truth)
    solid = image.convert("RGB")
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert np.array_equal(pixels(encoded(solid, kind)), values[..., :3])


@EXAMPLES
@given(sides=st.tuples(st.integers(1, 120), st.integers(1, 120)), size=st.integers(1, 40))
def test_any_sides_give_the_square_asked_for(sides: tuple[int, int], size: int) -> None:
    """A picture of one colour keeps it, whatever is resampled."""
    image = Image.new("RGB", sides, (10, 100, 200))
    content = encoded(image, "PNG")
    found = decode(content, size)
    if max(sides) > 100 * min(sides):
        assert isinstance(found, str)
        return
    assert np.array_equal(found, np.broadcast_to(np.array([10, 100, 200], np.uint8), (size, size, 3)))
    assert np.array_equal(found, center_crop(image, size))
