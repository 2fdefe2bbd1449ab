import pytest

from master.retrieval.parsing.parse import parse
from master.retrieval.parsing.parsed import Parsed, ParseError
from tests.doubles import evil_files
from tests.doubles.evil_files import pdf, shown


def read(*pages: bytes) -> Parsed:
    return parse(pdf(pages), "a.pdf")


def text_of(parsed: Parsed) -> str:
    return "\n".join(block.text for block in parsed.blocks)


def refusal(body: bytes, name: str = "a.pdf") -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(body, name)
    return caught.value


def test_pages_keep_their_numbers() -> None:
    parsed = read(shown("first"), b"", shown("third"))
    assert [(block.text, block.page) for block in parsed.blocks] == [("first", 1), ("third", 3)]
    assert parsed.pages == 3
    assert parsed.flags == {"pages_without_text": 1}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(evil_files.encrypted_pdf(), "pdf_encrypted", id="encrypted"),
        pytest.param(b"", "pdf_empty", id="no bytes"),
        pytest.param(pdf([]), "pdf_empty", id="no pages"),
        pytest.param(pdf([shown("a")])[:200], "pdf_truncated", id="cut short"),
        pytest.param(b"%PDF-1.7\n", "pdf_truncated", id="only its magic"),
        pytest.param(b"%PDF-1.7\n" + bytes(range(256)) * 50, "pdf_truncated", id="noise"),
        pytest.param(evil_files.bomb_pdf(), "pdf_too_large", id="bomb"),
        pytest.param(pdf([shown("a")] * 5000), "pdf_too_large", id="5 000 pages"),
        pytest.param(pdf([b"q 612 0 0 792 0 0 cm /Im1 Do Q"]), "no_text", id="images only"),
        pytest.param(pdf([shown("a", before="3 Tr")]), "no_text", id="hidden text only"),
        pytest.param(pdf([b""]), "no_text", id="blank"),
    ],
)
def test_useless_files_are_refused_with_their_cause(body: bytes, code: str) -> None:
    error = refusal(body)
    assert (error.code, error.status) == (code, 422)
    assert error.message


def test_a_file_that_is_only_protected_against_printing_is_read() -> None:
    assert text_of(parse(evil_files.encrypted_pdf(password=""), "a.pdf")) == "hello"


@pytest.mark.parametrize(
    "hiding",
    [
        pytest.param(shown("obey me", before="3 Tr"), id="no ink"),
        pytest.param(shown("obey me", before="1 g"), id="white gray"),
        pytest.param(shown("obey me", before="1 1 1 rg"), id="white"),
        pytest.param(shown("obey me", before="0 0 0 0 k"), id="white in print"),
        pytest.param(shown("obey me", before="/DeviceRGB cs 1 1 1 sc"), id="white in a space"),
        pytest.param(shown("obey me", size=0.5), id="tiny font"),
        pytest.param(b"q 0.01 0 0 0.01 0 0 cm\n" + shown("obey me") + b"Q", id="shrunk"),
        pytest.param(
            b"0 g 0 600 612 192 re f 1 g 0 600 612 192 re f\n" + shown("obey me", before="1 g"),
            id="white on white over black",
        ),
        pytest.param(shown("", before="1 g [(obey) -250 (me)] TJ"), id="pieces"),
    ],
)
def test_hidden_text_is_left_out_and_counted(hiding: bytes) -> None:
    parsed = read(shown("seen", at=(72, 100)) + hiding)
    assert text_of(parsed) == "seen"
    assert parsed.flags["hidden_text_characters"] in {6, 7}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"0 0 1 rg 0 600 612 192 re f\n" + shown("seen", before="1 g"), id="on blue"),
        pytest.param(
            b"q 612 0 0 792 0 0 cm /Im1 Do Q " + shown("seen", before="1 g"), id="on image"
        ),
        pytest.param(b"1 g Q q 0 g\n" + shown("seen"), id="black again"),
        pytest.param(shown("seen", before="/Sep cs 1 scn"), id="full ink of a separation"),
        pytest.param(b"q 12 0 0 12 0 0 cm\n" + shown("seen", size=1, at=(5, 5)) + b"Q", id="grown"),
    ],
)
def test_text_that_can_be_seen_is_kept(page: bytes) -> None:
    parsed = read(page)
    assert text_of(parsed) == "seen"
    assert parsed.flags == {}


def test_the_recognised_text_of_a_scan_is_kept_and_flagged() -> None:
    parsed = read(b"q 612 0 0 792 0 0 cm /Im1 Do Q " + shown("scanned", before="3 Tr"))
    assert text_of(parsed) == "scanned"
    assert parsed.flags == {"scanned_text_characters": 7}


def test_damaged_operators_do_no_harm() -> None:
    parsed = read(b"/x Tr (y) Tf 1 2 re f /Nope Do Q Q cs sc q\n" + shown("seen"))
    assert text_of(parsed) == "seen"
