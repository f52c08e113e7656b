import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.image_files import KINDS, content, draw, encode, encode_12_bits
from vaegan.data.images.decoding import (
    EXIF_ORIENTATION,
    UPRIGHT_TRANSPOSES,
    BrokenImage,
    ImageDecoder,
    ImageTraits,
    center_box,
    describe_error,
    silence_warnings,
)

COLOR = ImageDecoder(3, 16, 24, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)
LARGE = ImageDecoder(3, 16, 24, keeps_ratio=True, background=(255, 255, 255), max_pixels=200_000)
GRAY = ImageDecoder(1, 16, 24, keeps_ratio=False, background=(255, 255, 255), max_pixels=10_000)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def decode(decoder, image, format="PNG", **options):
    return decoder(encode(image, format, **options)).astype(int)


@pytest.mark.parametrize("decoder", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_formats_are_decoded(kind, decoder):
    pixels = decoder(content(kind))
    assert (
        pixels.shape == (16, 24, decoder.channels)
        and pixels.dtype == np.uint8
        and pixels.flags["C_CONTIGUOUS"]
    )
    assert pixels.std() > 1, "the image is blank"
    decoder.check(content(kind))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "alpha" not in kind and "palette" not in kind]
)
def test_all_formats_decode_to_the_same_image(kind):
    """One drawing in each format. Only lossy, gray and one-bit formats differ."""
    mode = KINDS[kind][0]
    expected = decode(COLOR, draw("L" if mode in ("L", "I;16") else "1" if mode == "1" else "RGB"))
    tolerance = 6 if KINDS[kind][1] in ("JPEG", "WEBP", "AVIF") else 1
    assert np.abs(COLOR(content(kind)).astype(int) - expected).mean() < tolerance


def test_reduced_jpeg_decoding_is_accurate():
    image = draw(width=480, height=320)
    small, full = decode(LARGE, image, "JPEG"), decode(LARGE, image)
    assert np.abs(small - full).mean() < 3


def test_16_bit_values_are_scaled_to_8_bits():
    image = Image.fromarray(np.full((16, 24), 0x8000, dtype=np.uint16))
    assert (decode(COLOR, image) == 0x80).all()


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_the_background(mode, background):
    decoder = ImageDecoder(3, 8, 8, True, background, 1000)
    if mode == "P":
        image, options = Image.new("P", (8, 8), 0), {"transparency": 0}
        image.putpalette([200, 0, 0, 0, 200, 0])
    else:
        image, options = Image.new(mode, (8, 8), (0,) * len(mode)), {}
    assert (decoder(encode(image, **options)) == np.array(background)).all()


def test_transparent_16_bit_level_shows_the_background():
    image = Image.fromarray(np.array([[0x2000, 0x2000, 0xF000, 0xF000]] * 4, dtype=np.uint16))
    pixels = ImageDecoder(3, 4, 4, False, (200, 0, 0), 1000)(encode(image, transparency=0x2000))
    assert pixels[:, 0].mean(0).tolist() == [200, 0, 0] and (pixels[:, -1] > 220).all()


@pytest.mark.parametrize("decoder", [COLOR, GRAY], ids=["color", "gray"])
def test_lab_images_are_decoded(decoder):
    assert decoder(encode(Image.new("LAB", (8, 8), (200, 128, 128)), "TIFF")).mean() > 100


def test_half_transparent_pixels_are_blended_with_the_background():
    decoder = ImageDecoder(1, 8, 8, True, (255, 255, 255), 1000)
    assert abs(int(decoder(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))).mean()) - 127) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(format, orientation):
    image = draw(width=40, height=30)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoder = ImageDecoder(3, 30, 40, True, (255, 255, 255), 10_000)
    rotated = image.copy()
    rotated.getexif()[EXIF_ORIENTATION] = orientation
    expected = np.asarray(ImageOps.fit(ImageOps.exif_transpose(rotated), (40, 30)))
    found = decode(decoder, image, format, exif=exif)
    assert np.abs(found - expected).mean() < 5
    assert (orientation in UPRIGHT_TRANSPOSES) == (orientation > 1)


def test_damaged_exif_data_are_ignored():
    assert COLOR(encode(draw(), "JPEG", exif=b"Exif\0\0MM\0*nonsense")).shape == (16, 24, 3)


def test_keeps_ratio_selects_cropping_or_stretching():
    """Red, green, blue from left to right: only green is left after a square crop."""
    image = Image.new("RGB", (90, 30))
    for i, color in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        image.paste(color, (30 * i, 0, 30 * i + 30, 30))
    cropped = ImageDecoder(3, 10, 10, True, (0, 0, 0), 10_000)(encode(image))
    assert cropped[..., 1].min() > 200 and cropped[..., ::2].max() < 50
    stretched = ImageDecoder(3, 10, 10, False, (0, 0, 0), 10_000)(encode(image))
    assert stretched[:, 0, 0].min() > 200 and stretched[:, -1, 2].min() > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_small_images_are_enlarged(size):
    image = Image.new("RGB", size, (9, 90, 200))
    for decoder in (COLOR, GRAY):
        assert decoder(encode(image)).shape == (16, 24, decoder.channels)


def test_center_box_is_the_largest_box_of_the_ratio():
    assert center_box((100, 50), (10, 10)) == (25, 0, 75, 50)
    assert center_box((50, 100), (20, 10)) == (0, 37.5, 50, 62.5)


def png_header(width, height):
    """Return the start of a PNG of the given size, without its pixels."""
    chunks = (
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(b"few"),
    )
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels, **tags):
    """Return a TIFF of 8 x 8 pixels with 8 bits per channel and additional tags, such as tag_277=4.

    The default is gray (tag 262 is 1) with one channel (tag 277).
    """
    values = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 512, 277: 1, 278: 8, 279: len(pixels)}
    values |= {int(name.removeprefix("tag_")): value for name, value in tags.items()}
    entries = (struct.pack("<HHIHH", tag, 3, 1, values[tag], 0) for tag in sorted(values))
    start = struct.pack("<2sHIH", b"II", 42, 8, len(values)) + b"".join(entries) + bytes(4)
    return start.ljust(512, b"\0") + pixels


@pytest.mark.parametrize(
    "broken, message",
    [
        (b"", "the file is empty"),
        (b"just some words", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (
            encode(draw(width=200, height=100)),
            "the image has 200 x 100 pixels, more than dataset.max_pixels=10000",
        ),
        (png_header(100_000, 100_000), "more than 178956970 pixels"),
        (content("rgb.jpg")[:-200], "truncated|Truncated"),
        (content("rgb.png")[:-100], "truncated|Truncated|broken|incomplete"),
        (content("rgb.bmp")[:-100], "truncated|Truncated"),
        (encode(Image.new("F", (8, 8)), "TIFF"), "32-bit pixel values"),
        (b"Pf\n8 8\n-1.0\n" + bytes(256), "32-bit pixel values"),
        (encode(Image.new("I", (8, 8), 70_000), "TIFF"), "32-bit pixel values"),
        (tiff(bytes(64), tag_339=2), "signed or 32-bit pixel values"),
    ],
    ids=str,
)
def test_broken_images_raise_with_a_reason(broken, message):
    silence_warnings()
    with pytest.raises(BrokenImage, match=message):
        COLOR(broken)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("png")])
def test_flipped_bits_of_a_png_are_found(kind):
    png = content(kind)
    start = png.index(b"IDAT")
    for position in range(start + 4, len(png) - 16, 1 + len(png) // 20):
        damaged = bytearray(png)
        damaged[position] ^= 4
        with pytest.raises(BrokenImage, match="^damaged: broken PNG file"):
            COLOR(bytes(damaged))


def test_check_reads_only_the_header():
    COLOR.check(content("rgb.png")[:-100])
    floats = encode(Image.new("F", (8, 8)), "TIFF")
    integers = encode(Image.new("I", (8, 8), 70_000), "TIFF")
    for broken in (b"", b"words", png_header(1000, 1000), floats, integers):
        with pytest.raises(BrokenImage):
            COLOR.check(broken)


def assert_image_or_broken(decoder, data):
    """Check that the input gives an array of the target shape, or raises BrokenImage."""
    try:
        pixels = decoder(data)
    except BrokenImage as error:
        assert str(error)
        return
    assert (
        pixels.shape == (decoder.height, decoder.width, decoder.channels)
        and pixels.dtype == np.uint8
    )


@given(st.binary(max_size=300))
def test_random_bytes_give_an_image_or_raise(data):
    assert_image_or_broken(COLOR, data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 3000),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=4)), max_size=3),
)
def test_damaged_images_give_an_image_or_raise(kind, length, edits):
    """Truncate a file at a random position, and change some bytes."""
    silence_warnings()
    data = bytearray(content(kind)[:length])
    for position, patch in edits:
        data[position : position + len(patch)] = patch
    for decoder in (COLOR, GRAY):
        assert_image_or_broken(decoder, bytes(data))


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(4, 40),
    st.integers(4, 40),
    st.booleans(),
)
def test_any_image_size_decodes_to_any_target_size(
    kind, width, height, to_width, to_height, keeps_ratio
):
    decoder = ImageDecoder(3, to_height, to_width, keeps_ratio, (0, 0, 0), 10_000)
    assert decoder(content(kind, width=width, height=height)).shape == (to_height, to_width, 3)


def test_error_description_is_one_printable_line():
    assert (
        describe_error(ValueError("\x1b[31mred\x07\ntwo\u202e lines"))
        == "ValueError: [31mred two lines"
    )


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_bit_depth_scales_the_levels_of_16_bit_files(format):
    data = encode_12_bits(format=format)
    dark, bright = GRAY(data), replace(GRAY, bit_depth=12)(data)
    assert dark.max() <= 16 and bright.max() >= 240
    for decoder in (GRAY, replace(GRAY, bit_depth=12)):
        assert decoder.decode(data).traits == decoder.check(data) == ImageTraits(num_bits=12)


def test_levels_above_the_bit_depth_are_clipped():
    image = Image.fromarray(np.full((8, 8), 0xF000, dtype=np.uint16))
    assert (replace(GRAY, bit_depth=12)(encode(image)) == 255).all()


def test_bit_depth_of_the_file_format_takes_precedence():
    """Pillow scales a PGM by its maximum; TIFF levels of 12 bits say so in their header."""
    levels = np.linspace(0, 4095, 64).astype(np.uint16)
    pgm = b"P5 8 8 4095\n" + levels.astype(">u2").tobytes()
    decoder = ImageDecoder(1, 8, 8, False, (0, 0, 0), 1000)
    expected = (levels >> 4).reshape(8, 8, 1)
    assert np.abs(decoder(pgm).astype(int) - expected).max() <= 1
    for bit_depth in (12, 14, 16):
        assert (replace(decoder, bit_depth=bit_depth)(packed_tiff(levels)) == expected).all()
    assert decoder.check(packed_tiff(levels)).num_bits == 0


@pytest.mark.parametrize("bit_depth, expected", [(16, 155), (12, 95)])
def test_level_0_of_a_16_bit_tiff_may_be_white(bit_depth, expected):
    level = 100 << 8 if bit_depth == 16 else 160 << 4
    content = encode(Image.fromarray(np.full((8, 8), level, np.uint16)), "TIFF")
    black_is_zero, white_is_zero = (struct.pack("<HHIHH", 262, 3, 1, i, 0) for i in (1, 0))
    assert content.count(black_is_zero) == 1
    content = content.replace(black_is_zero, white_is_zero)
    assert (replace(GRAY, bit_depth=bit_depth)(content) == expected).all()


def packed_tiff(levels):
    """Return a TIFF of 8 x 8 gray levels with 12 bits each."""
    packed = bytearray()
    for first, second in levels.reshape(-1, 2).tolist():
        packed += bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    entries = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 110), (278, 8), (279, 96)]
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    header += b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return header + struct.pack("<I", 0) + bytes(packed)


def test_tiff_stack_is_recognized_by_its_header():
    pages = [draw(seed=i) for i in range(3)]
    stack = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert COLOR.check(stack).is_stack and COLOR.decode(stack).traits.is_stack
    assert np.array_equal(COLOR(stack), COLOR(encode(pages[0], "TIFF")))
    for kind in KINDS:
        assert not COLOR.check(content(kind)).is_stack


@pytest.mark.parametrize("alpha, level", [(0, 100), (255, 100), (128, 178)])
def test_bitmap_with_unused_alpha_is_opaque(alpha, level):
    pixels = bytes([100, 100, 100, alpha]) * 64
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    header = header.ljust(108, b"\0")
    start = 14 + len(header)
    bitmap = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels
    assert np.abs(COLOR(bitmap).astype(int) - level).max() <= 1


@pytest.mark.parametrize("tags, level", [({}, 100), ({"tag_338": 0}, 100), ({"tag_338": 2}, 255)])
def test_unnamed_fourth_channel_of_zeros_in_a_tiff_is_no_alpha(tags, level):
    file = tiff(bytes([100, 100, 100, 0]) * 64, tag_262=2, tag_277=4, **tags)
    assert (COLOR(file) == level).all()
