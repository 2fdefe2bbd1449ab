"""Is a zip archive safe to read? Judged by its directory, then by really reading it."""

import io
import stat
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Final

from master.retrieval.parsing.parsed import ParseError

MOST_ENTRIES: Final = 5_000
MOST_BYTES: Final = 200_000_000
MOST_RATIO: Final = 200
_RATIO_FROM: Final = 10_000_000
_NESTED: Final = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")
_EMBEDDED: Final = (
    "word/embeddings/",
    "word/charts/",
)  # an Office file may hold sheets; not opened


def check(body: bytes) -> None:
    """Raises zip_bomb, zip_unsafe or docx_damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            _check_sizes(entries, len(body))
            for entry in entries:
                _check_name(entry)
            _check_content(archive, entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ParseError("docx_damaged", f"the archive cannot be read: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, an unknown compression
        raise ParseError("zip_unsafe", f"the archive cannot be read: {error}") from error


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int) -> None:
    if len(entries) > MOST_ENTRIES:
        raise ParseError("zip_bomb", f"the archive has more than {MOST_ENTRIES} entries")
    declared = sum(entry.file_size for entry in entries)
    if declared > MOST_BYTES or (declared > _RATIO_FROM and declared > packed * MOST_RATIO):
        raise ParseError("zip_bomb", f"{packed} bytes would become {declared}")


def _check_name(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0] or "\x00" in name:
        raise ParseError("zip_unsafe", "the archive has an entry that leaves its folder")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ParseError("zip_unsafe", "the archive has a link")


def _check_content(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    read = 0
    for entry in entries:
        with archive.open(entry) as member:
            piece = member.read(65_536)
            if piece.startswith(_NESTED) and not entry.filename.startswith(_EMBEDDED):
                raise ParseError("zip_unsafe", "the archive has an archive inside")
            while piece:
                read += len(piece)
                if read > MOST_BYTES:
                    raise ParseError("zip_bomb", f"the archive holds more than {MOST_BYTES} bytes")
                piece = member.read(65_536)
