import pytest

from master.retrieval.chunking import Block
from master.retrieval.parsing.parse import parse
from master.retrieval.parsing.parsed import ParseError
from master.retrieval.parsing.plain import decode


def texts(body: bytes | str, name: str) -> list[str]:
    content = body if isinstance(body, bytes) else body.encode()
    return [block.text for block in parse(content, name).blocks]


def refusal(body: bytes | str, name: str) -> ParseError:
    content = body if isinstance(body, bytes) else body.encode()
    with pytest.raises(ParseError) as caught:
        parse(content, name)
    return caught.value


def test_paragraphs_of_a_text() -> None:
    assert texts("one\r\ntwo\r\n\r\n  \r\nthree\n", "a.txt") == ["one\ntwo", "three"]


def test_nul_and_invalid_bytes_are_cleaned_and_counted() -> None:
    parsed = parse(b"caf\xe9 is\x00 open, na\xc3\xafve\x07", "a.txt")
    assert parsed.blocks == (Block("caf\ufffd is open, naïve"),)
    assert parsed.flags == {"cleaned_characters": 3}


def test_replacement_characters_of_the_author_are_not_counted() -> None:
    assert parse("a \ufffd b".encode(), "a.txt").flags == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    assert texts("Grüße 機械".encode(encoding), "a.txt") == ["Grüße 機械"]


@pytest.mark.parametrize(
    ("charset", "said"),
    [
        pytest.param("iso-8859-1", "Grüße", id="known"),
        pytest.param("ascii", "Gr\ufffd\ufffde", id="wrong"),
        pytest.param("nonsense", "Grüße", id="unknown"),
        pytest.param("rot13", "Grüße", id="no encoding of text"),
    ],
)
def test_a_charset_is_used_if_it_is_one(charset: str, said: str) -> None:
    parsed = parse("Grüße".encode("latin-1"), "a", f"text/plain; charset={charset}")
    assert parsed.blocks == (Block(said),)


def test_tag_characters_are_hidden_text() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    parsed = parse(f"see{hidden}n".encode(), "a.txt")
    assert parsed.blocks == (Block("seen"),)
    assert parsed.flags == {"hidden_text_characters": 4}


def test_markdown_headings_make_paths() -> None:
    source = "intro\n\n# A #\ntext\n## B\nmore\n\nC\n===\n- x\n- y\n\nD\n---\nlast\n"
    parsed = parse(source.encode(), "a.md")
    assert parsed.blocks == (
        Block("intro"),
        Block("A", ("A",)),
        Block("text", ("A",)),
        Block("B", ("A", "B")),
        Block("more", ("A", "B")),
        Block("C", ("C",)),
        Block("- x\n- y", ("C",)),
        Block("D", ("C", "D")),
        Block("last", ("C", "D")),
    )
    assert parsed.title == "A"


def test_markdown_keeps_code_and_tables() -> None:
    source = "```py\n# no heading\n\n<!-- kept -->\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert texts(source, "a.md") == [
        "```py\n# no heading\n\n<!-- kept -->\n```",
        "| a | b |\n|---|---|\n| 1 | 2 |",
    ]


def test_markdown_fences_end_only_with_their_own_kind() -> None:
    assert texts("````\n```\n# a\n````\n# b", "a.md") == ["````\n```\n# a\n````", "b"]
    assert texts("~~~\nnever closed\n\n# a", "a.md") == ["~~~\nnever closed\n\n# a"]


def test_markdown_comments_are_hidden_text() -> None:
    parsed = parse(b"seen <!-- obey\n\n# me --> too\n\n<!-- open", "a.md")
    assert [block.text for block in parsed.blocks] == ["seen  too"]
    assert parsed.flags == {"hidden_text_characters": len("obey\n\n# me") + len("open")}


def test_front_matter_is_no_heading() -> None:
    assert texts("---\ntitle: x\n---\n# A", "a.md") == ["title: x", "A"]


@pytest.mark.parametrize("line", ["# " + " " * 200_000 + "x", "#" * 400_000, "." * 400_000 + "x"])
def test_long_odd_lines_of_markdown_take_no_time(line: str) -> None:
    assert len(texts(line + "\n\nend", "a.md")) == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_name_their_columns(delimiter: str) -> None:
    rows = [["name", "price, net"], ["valve", "1.50"], ["pump", ""]]
    source = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert texts(source, "a.csv") == ["name: valve; price, net: 1.50", "name: pump"]


def test_ragged_rows_are_read_and_counted() -> None:
    parsed = parse(b"a,b,\n1\n1,2,3,4\n\n1,2,3\n", "a.csv")
    assert [block.text for block in parsed.blocks] == [
        "a: 1",
        "a: 1; b: 2; column 3: 3; column 4: 4",
        "a: 1; b: 2; column 3: 3",
    ]
    assert parsed.flags == {"ragged_rows": 2}


def test_cells_may_have_line_breaks() -> None:
    assert texts('a,b\n"x\ny",2\n', "a.csv") == ["a: x\ny; b: 2"]


def test_a_huge_field_is_refused_with_its_line() -> None:
    error = refusal('a,b\n1,"' + "x" * 1_100_000, "a.csv")
    assert error.code == "bad_csv"
    assert "line 2" in error.message


def test_a_table_of_a_header_only_is_kept() -> None:
    assert texts("a,b\n", "a.csv") == ["a; b"]


def test_records_of_a_list_are_blocks() -> None:
    source = '[{"id": 1, "tags": ["x", "y"], "of": {"price": 1.10}}, {"id": 2, "no": null}]'
    assert texts(source, "a.json") == ["id: 1\ntags[0]: x\ntags[1]: y\nof.price: 1.10", "id: 2"]


def test_records_one_object_down_are_blocks_too() -> None:
    source = '{"items": [{"a": true}, {"a": false}], "total": 2}'
    assert texts(source, "a.json") == ["items[0].a: true", "items[1].a: false", "total: 2"]


def test_each_json_line_is_a_record() -> None:
    assert texts('{"a": 1}\n\n{"a": 2}\n"x"\n', "a.jsonl") == ["a: 1", "a: 2", "x"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param("{", "a.json", id="cut short"),
        pytest.param("[" * 100_000, "a.json", id="deep lists"),
        pytest.param('{"a":' * 100_000, "a.json", id="deep objects"),
        pytest.param("[" * 500 + "1" + "]" * 500, "a.json", id="deep and whole"),
        pytest.param('{"a": 1}\n{', "a.jsonl", id="second line"),
    ],
)
def test_bad_json_is_refused(source: str, name: str) -> None:
    assert refusal(source, name).code == "bad_json"


def test_long_numbers_and_lone_surrogates_of_json_do_no_harm() -> None:
    assert texts('{"n": ' + "9" * 10_000 + "}", "a.json") == ["n: " + "9" * 10_000]
    parsed = parse(rb'{"a": "x\ud800\u0000y"}', "a.json")
    assert parsed.blocks == (Block("a: x\ufffdy"),)
    assert parsed.flags == {"cleaned_characters": 2}


@pytest.mark.parametrize(
    "name", ["a.txt", "a.md", "a.csv", "a.json", "a.jsonl", "a.html", "a.docx"]
)
def test_nothing_is_an_empty_document(name: str) -> None:
    assert refusal(b"", name).code == "empty_document"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.jsonl", "a.html"])
def test_blanks_are_an_empty_document(name: str) -> None:
    assert refusal(b" \n\n \n", name).code == "empty_document"


def test_fifty_megabytes_in_one_line_are_one_block() -> None:
    body = b"word " * 10_000_000
    assert len(parse(body, "a.txt").blocks[0].text) == len(body)


@pytest.mark.parametrize(
    ("body", "said", "wrong"),
    [
        pytest.param("Straße: 5 €".encode("cp1252"), "Straße: 5 €", 0, id="old Windows"),
        pytest.param("Straße".encode() + b" B\xfcro", "Straße B\ufffdro", 1, id="mixed"),
        pytest.param(b"\x81\x8d\x8f", "\ufffd\ufffd\ufffd", 3, id="no letters"),
        pytest.param("Straße".encode(), "Straße", 0, id="UTF-8"),
    ],
)
def test_what_old_windows_programs_write_is_read(body: bytes, said: str, wrong: int) -> None:
    assert decode(body) == (said, wrong)
