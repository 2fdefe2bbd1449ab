"""A screenshot with a palette: a third of the bytes, and nothing of text and lines is lost.

Chromium reads the pixels and looks for the nearest colours; the file is written here.
"""

import base64
import struct
import zlib
from typing import Final

from playwright.async_api import Page

_MOST: Final = 255
_ALIKE: Final = 64
"""The square of a distance that nobody sees."""
_QUANTISE: Final = """async ([image, most, alike]) => {
    const bitmap = await createImageBitmap(await (await fetch(image)).blob());
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const brush = canvas.getContext('2d');
    brush.drawImage(bitmap, 0, 0);
    const pixels = new Uint32Array(
        brush.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const parts = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
    const far = ([r, g, b], [red, green, blue]) =>
        (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
    const palette = [];
    // A rare colour that is like no other goes before many shades of a common one.
    for (const [pixel] of [...counts].sort((a, b) => b[1] - a[1])) {
        const colour = parts(pixel);
        const known = palette.some((other) => far(colour, other) < alike);
        if (!known && palette.length < most) palette.push(colour);
    }
    const places = new Map();
    for (const pixel of counts.keys()) {
        const colour = parts(pixel);
        let [best, least] = [0, Infinity];
        palette.forEach((other, place) => {
            const distance = far(colour, other);
            if (distance < least) [best, least] = [place, distance];
        });
        places.set(pixel, best);
    }
    const indices = Uint8Array.from(pixels, (pixel) => places.get(pixel));
    return {
        width: bitmap.width, height: bitmap.height, palette: palette.flat(),
        indices: indices.toBase64(),
    };
}"""


async def shrunk(page: Page, png: bytes) -> bytes:
    """The same picture with at most 255 colours. `page`: an empty one, which reads it."""
    image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    found = await page.evaluate(_QUANTISE, [image, _MOST, _ALIKE])
    width, height = found["width"], found["height"]
    indices = base64.b64decode(found["indices"])
    rows = b"".join(b"\0" + indices[at : at + width] for at in range(0, width * height, width))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(found["palette"])),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
