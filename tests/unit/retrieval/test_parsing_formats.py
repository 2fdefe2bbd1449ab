import pytest

from master.retrieval.parsing.formats import SUFFIXES, Format, sniff
from master.retrieval.parsing.parsed import ParseError
from tests.doubles import evil_files

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
EXE = b"MZ\x90\x00\x03\x00\x00\x00" * 20
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("body", "name", "media_type", "found"),
    [
        (evil_files.pdf([b""]), "a.pdf", None, Format.PDF),
        (evil_files.pdf([b""]), "download", OCTETS, Format.PDF),
        (evil_files.docx(), "a", None, Format.DOCX),
        (b"hello", "a.txt", OCTETS, Format.TEXT),
        (b"hello", "README", None, Format.TEXT),
        (b"hello", "a.py", "text/x-python", Format.TEXT),
        (b"# hello", "a.MD", None, Format.MARKDOWN),
        (b"a;b", "export", "text/csv; charset=utf-8", Format.CSV),
        (b"{}", "", "application/json", Format.JSON),
        (b"<p>x", "index.php", "text/html", Format.HTML),
        (b"\n<!DOCTYPE html>", "page", None, Format.HTML),
        (b"<!doctype html>", "page.md", "text/html", Format.HTML),
        (b"the magic is %PDF-1.7", "a.txt", None, Format.TEXT),
        (b"MZ was here", "a.txt", None, Format.TEXT),
        ("x".encode("utf-16"), "a.txt", None, Format.TEXT),
    ],
)
def test_content_decides_and_names_choose_among_texts(
    body: bytes, name: str, media_type: str | None, found: Format
) -> None:
    assert sniff(body, name, media_type) is found


@pytest.mark.parametrize(
    ("body", "name", "media_type"),
    [
        (EXE, "invoice.pdf", "application/pdf"),
        (EXE, "a.txt", None),
        (PNG, "a.docx", None),
        (PNG, "a.txt", "text/plain"),
        (b"hello", "a.pdf", None),
        (b"hello", "a.docx", None),
        (evil_files.pdf([b""]), "a.txt", None),
        (evil_files.pdf([b""]), "a.docx", None),
        (evil_files.zipped({"xl/workbook.xml": b""}), "a.xlsx", None),
        (evil_files.docx(), "a.pdf", None),
        (b"\x1f\x8b\x08\x00rest", "a.csv", None),
        (bytes(range(256)), "a", None),
        (b"words", "a", "image/png"),
    ],
)
def test_what_is_not_what_it_says_is_refused(
    body: bytes, name: str, media_type: str | None
) -> None:
    with pytest.raises(ParseError) as caught:
        sniff(body, name, media_type)
    assert (caught.value.code, caught.value.status) == ("bad_media_type", 415)


def test_every_format_has_a_file_name() -> None:
    assert set(SUFFIXES.values()) == set(Format)
