"""Row 23 and 24: images inside a chat."""

import base64
import struct
import zlib

import pytest

from master.api.images import BadImage, check_data_url, dimensions


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"


def jpeg(width: int, height: int, marker: int = 0xC0) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 8) + b"\xff\xc0\x00\x01\x02\x03"  # looks like a frame
    tables = b"\xff\xff\xff\xc4" + struct.pack(">H", 4) + b"\x00\x00"  # a fill byte, then DHT
    frame = bytes([0xFF, marker]) + struct.pack(">HBHH", 11, 8, height, width) + b"\x01\x11\x00\x00"
    return b"\xff\xd8" + exif + tables + frame


def webp_lossy(width: int, height: int) -> bytes:
    frame = b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height)
    return b"RIFF\x00\x00\x00\x00WEBPVP8 \x00\x00\x00\x00" + frame


def webp_lossless(width: int, height: int) -> bytes:
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f" + bits


def webp_extended(width: int, height: int) -> bytes:
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + sides


FORMATS = [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended]


def url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("make", FORMATS)
def test_the_size_is_read_from_each_format(make: type) -> None:
    assert check_data_url(url(make(640, 481))) == (640, 481)


@pytest.mark.parametrize("make", FORMATS)
def test_an_image_cut_anywhere_in_its_header_is_refused(make: type) -> None:
    whole = make(300, 200)
    sizes = set()
    for end in range(len(whole)):
        try:
            sizes.add(dimensions(whole[:end]))
        except BadImage:
            continue
    assert sizes <= {(300, 200)}


def test_a_progressive_jpeg_is_a_jpeg() -> None:
    assert dimensions(jpeg(10, 20, marker=0xC2)) == (10, 20)


@pytest.mark.parametrize(
    "remote",
    [
        "https://example.org/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "//example.org/cat.png",
        "ftp://example.org/cat.png",
        "/etc/passwd",
        "",
        " data:image/png;base64,AAAA",
    ],
)
def test_images_elsewhere_are_not_fetched(remote: str) -> None:
    with pytest.raises(BadImage, match="remote images not allowed"):
        check_data_url(remote)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("data:image/png,abc", "base64 data URL"),
        ("data:text/html;base64,PGI+", "base64 data URL"),
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/png;base64,iVBORw0", "not valid base64"),
        ("data:image/png;base64,é", "not valid base64"),
        ("data:image/png;base64,", "not a PNG"),
        (url(b"MZ\x90\x00 an exe"), "not a PNG"),
        (url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"), "not a PNG"),
        (url(png(1, 1)), "1x1 pixels"),
        (url(png(0, 50)), "0x50 pixels"),
        (url(gif(100, 1)), "100x1 pixels"),
        (url(png(40_000, 40_000)), "at most 16384 a side"),
        (url(webp_extended(16_385, 20)), "at most 16384 a side"),
        (url(jpeg(16_000, 16_000)), "100000000 together"),
        (url(b"\xff\xd8\xff\xd9"), "without a size"),
        (url(b"\xff\xd8\xff\xe0\x00\x04ab" + b"zz" * 9), "broken header"),
        (url(b"\xff\xd8" + b"\xff" * 5000), "cut off"),
    ],
)
def test_a_broken_or_absurd_image_is_refused(given: str, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        check_data_url(given)


def test_the_largest_side_is_accepted() -> None:
    assert check_data_url(url(png(16_384, 2))) == (16_384, 2)
