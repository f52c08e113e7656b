import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.image_files import KINDS, content, draw, encode
from vaegan.data.images.decoding import (
    EXIF_ORIENTATION,
    UPRIGHT_TRANSPOSES,
    BrokenImage,
    ImageDecoder,
    center_box,
    describe_error,
    silence_warnings,
)

COLOR = ImageDecoder(3, 16, 24, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)
LARGE = ImageDecoder(3, 16, 24, keeps_ratio=True, background=(255, 255, 255), max_pixels=200_000)
GRAY = ImageDecoder(1, 16, 24, keeps_ratio=False, background=(255, 255, 255), max_pixels=10_000)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def levels(decoder, image, format="PNG", **options):
    return decoder(encode(image, format, **options)).astype(int)


@pytest.mark.parametrize("decoder", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read(kind, decoder):
    pixels = decoder(content(kind))
    assert (
        pixels.shape == (16, 24, decoder.channels)
        and pixels.dtype == np.uint8
        and pixels.flags["C_CONTIGUOUS"]
    )
    assert pixels.std() > 1, "a blank image"
    decoder.check(content(kind))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "alpha" not in kind and "palette" not in kind]
)
def test_all_kinds_show_the_same_image(kind):
    """The same drawing in every format; only lossy coding, gray and one bit per pixel differ."""
    mode = KINDS[kind][0]
    expected = levels(COLOR, draw("L" if mode in ("L", "I;16") else "1" if mode == "1" else "RGB"))
    tolerance = 6 if KINDS[kind][1] in ("JPEG", "WEBP") else 1
    assert np.abs(COLOR(content(kind)).astype(int) - expected).mean() < tolerance


def test_large_jpegs_are_decoded_at_a_reduced_size_that_hardly_shows():
    image = draw(width=480, height=320)
    small, full = levels(LARGE, image, "JPEG"), levels(LARGE, image)
    assert np.abs(small - full).mean() < 3


def test_sixteen_bits_are_scaled_and_not_cut_off():
    ramp = Image.fromarray(np.full((16, 24), 0x8000, dtype=np.uint16))
    assert (levels(COLOR, ramp) == 0x80).all()


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background(mode, background):
    decoder = ImageDecoder(3, 8, 8, True, background, 1000)
    if mode == "P":
        image, options = Image.new("P", (8, 8), 0), {"transparency": 0}
        image.putpalette([200, 0, 0, 0, 200, 0])
    else:
        image, options = Image.new(mode, (8, 8), (0,) * len(mode)), {}
    assert (decoder(encode(image, **options)) == np.array(background)).all()


def test_a_transparent_level_of_sixteen_bits_shows_the_background():
    ramp = Image.fromarray(np.array([[0x2000, 0x2000, 0xF000, 0xF000]] * 4, dtype=np.uint16))
    pixels = ImageDecoder(3, 4, 4, False, (200, 0, 0), 1000)(encode(ramp, transparency=0x2000))
    assert pixels[:, 0].mean(0).tolist() == [200, 0, 0] and (pixels[:, -1] > 220).all()


@pytest.mark.parametrize("decoder", [COLOR, GRAY], ids=["color", "gray"])
def test_lab_is_read(decoder):
    assert decoder(encode(Image.new("LAB", (8, 8), (200, 128, 128)), "TIFF")).mean() > 100


def test_half_transparent_is_half_the_background():
    decoder = ImageDecoder(1, 8, 8, True, (255, 255, 255), 1000)
    assert abs(int(decoder(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))).mean()) - 127) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_images_stand_upright(format, orientation):
    image = draw(width=40, height=30)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    decoder = ImageDecoder(3, 30, 40, True, (255, 255, 255), 10_000)
    turned = image.copy()
    turned.getexif()[EXIF_ORIENTATION] = orientation
    expected = np.asarray(ImageOps.fit(ImageOps.exif_transpose(turned), (40, 30)))
    found = levels(decoder, image, format, exif=exif)
    assert np.abs(found - expected).mean() < 5
    assert (orientation in UPRIGHT_TRANSPOSES) == (orientation > 1)


def test_damaged_exif_data_do_not_matter():
    assert COLOR(encode(draw(), "JPEG", exif=b"Exif\0\0MM\0*nonsense")).shape == (16, 24, 3)


def test_the_ratio_is_kept_by_cutting_or_the_whole_image_is_stretched():
    """Red, green, blue from left to right: cut to a square only green is left."""
    image = Image.new("RGB", (90, 30))
    for i, color in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        image.paste(color, (30 * i, 0, 30 * i + 30, 30))
    cut = ImageDecoder(3, 10, 10, True, (0, 0, 0), 10_000)(encode(image))
    assert cut[..., 1].min() > 200 and cut[..., ::2].max() < 50
    whole = ImageDecoder(3, 10, 10, False, (0, 0, 0), 10_000)(encode(image))
    assert whole[:, 0, 0].min() > 200 and whole[:, -1, 2].min() > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_images_smaller_than_the_size_are_enlarged(size):
    image = Image.new("RGB", size, (9, 90, 200))
    for decoder in (COLOR, GRAY):
        assert decoder(encode(image)).shape == (16, 24, decoder.channels)


def test_the_center_is_the_largest_part_of_that_ratio():
    assert center_box((100, 50), (10, 10)) == (25, 0, 75, 50)
    assert center_box((50, 100), (20, 10)) == (0, 37.5, 50, 62.5)


def png_header(width, height):
    """Begins as a PNG of that size does, and has nothing more."""
    chunks = (
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(b"few"),
    )
    parts = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "broken, why",
    [
        (b"", "the file is empty"),
        (b"just some words", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (
            encode(draw(width=200, height=100)),
            "its 200 x 100 pixels are more than dataset.max_pixels=10000",
        ),
        (png_header(100_000, 100_000), "more than 178956970 pixels"),
        (content("rgb.jpg")[:-200], "truncated|Truncated"),
        (content("rgb.png")[:-100], "truncated|Truncated|broken|incomplete"),
        (content("rgb.bmp")[:-100], "truncated|Truncated"),
        (encode(Image.new("F", (8, 8)), "TIFF"), "numbers of 32 bits"),
        (encode(Image.new("I", (8, 8), 70_000), "TIFF"), "numbers of 32 bits"),
    ],
    ids=str,
)
def test_what_is_broken_says_why(broken, why):
    silence_warnings()
    with pytest.raises(BrokenImage, match=why):
        COLOR(broken)


def test_the_check_decodes_nothing_and_notices_what_it_can():
    COLOR.check(content("rgb.png")[:-100])
    for broken in (b"", b"words", png_header(1000, 1000)):
        with pytest.raises(BrokenImage):
            COLOR.check(broken)


def is_image_or_broken(decoder, data):
    """Any bytes: an array of the one shape, or one kind of error."""
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
def test_random_bytes_do_no_harm(data):
    is_image_or_broken(COLOR, data)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 3000),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=4)), max_size=3),
)
def test_damaged_images_do_no_harm(kind, length, edits):
    """Cut short anywhere, with some bytes changed."""
    silence_warnings()
    data = bytearray(content(kind)[:length])
    for place, patch in edits:
        data[place : place + len(patch)] = patch
    for decoder in (COLOR, GRAY):
        is_image_or_broken(decoder, bytes(data))


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(4, 40),
    st.integers(4, 40),
    st.booleans(),
)
def test_every_size_comes_out_at_the_size_that_is_wanted(
    kind, width, height, to_width, to_height, keeps_ratio
):
    decoder = ImageDecoder(3, to_height, to_width, keeps_ratio, (0, 0, 0), 10_000)
    assert decoder(content(kind, width=width, height=height)).shape == (to_height, to_width, 3)


def test_a_reason_is_one_line_that_commands_no_terminal():
    assert (
        describe_error(ValueError("\x1b[31mred\x07\ntwo\u202e lines"))
        == "ValueError: [31mred two lines"
    )
