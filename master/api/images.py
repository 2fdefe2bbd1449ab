"""Images in a chat: `data:` URLs only, and nothing that would hurt an engine.

A remote image would make the server fetch what a stranger names, so there are none. The size is
read from the file's own header; pixels are not decoded here.
"""

import binascii
import re
import struct

MAX_SIDE = 16_384
MAX_PIXELS = 100_000_000
MIN_SIDE = 2  # vision engines crash on single pixels

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_NOT_SIZES = frozenset({0xC4, 0xC8, 0xCC})  # within JPEG's SOF range, but other things
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


class BadImage(ValueError):
    """Not an image we pass on; the message says why."""


def check_data_url(url: str) -> tuple[int, int]:
    """Width and height of an image given as a data URL. Raises BadImage."""
    prefix = _DATA_URL.match(url[:64])
    if prefix is None:
        if url[:5].lower() == "data:":
            raise BadImage("must be a base64 data URL of an image: `data:image/png;base64,…`")
        raise BadImage("remote images not allowed; send `data:image/png;base64,…`")
    try:
        content = binascii.a2b_base64(url[prefix.end() :], strict_mode=True)
    except ValueError:
        raise BadImage("is not valid base64") from None
    width, height = dimensions(content)
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"is {width}x{height} pixels; at least {MIN_SIDE} a side")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limits = f"at most {MAX_SIDE} a side and {MAX_PIXELS} together"
        raise BadImage(f"is {width}x{height} pixels; {limits}")
    return width, height


def dimensions(content: bytes) -> tuple[int, int]:
    """Width and height from the header of a PNG, JPEG, GIF or WebP file. Raises BadImage."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
            return _pair(">II", content, 16)
        if content.startswith((b"GIF87a", b"GIF89a")):
            return _pair("<HH", content, 6)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp(content)
    except (struct.error, IndexError):
        raise BadImage("is cut off within its header") from None
    raise BadImage("is not a PNG, JPEG, GIF or WebP image")


def _pair(layout: str, content: bytes, offset: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, content, offset)
    return first, second


def _jpeg(content: bytes) -> tuple[int, int]:
    """Walk the segments to the start of frame."""
    at = 2
    while True:
        if content[at] != 0xFF:
            raise BadImage("is a JPEG with a broken header")
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_SIZES:
            height, width = _pair(">HH", content, at + 5)
            return width, height
        elif marker in {0xD9, 0xDA}:
            raise BadImage("is a JPEG without a size")
        else:
            (length,) = struct.unpack_from(">H", content, at + 2)
            at += 2 + max(length, 2)


def _webp(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return _triple(content, 24) + 1, _triple(content, 27) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = _pair("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadImage("is a WebP of an unknown kind")


def _triple(content: bytes, offset: int) -> int:
    low, middle, high = struct.unpack_from("<BBB", content, offset)
    return int(low | middle << 8 | high << 16)
