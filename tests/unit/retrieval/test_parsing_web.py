import pytest

from master.retrieval.chunking import Block
from master.retrieval.parsing.parse import parse
from master.retrieval.parsing.parsed import Parsed


def read(source: str) -> Parsed:
    return parse(source.encode(), "a.html")


def texts(source: str) -> list[str]:
    return [block.text for block in read(source).blocks]


def test_headings_make_paths_and_the_title_is_known() -> None:
    source = """<!doctype html><html><head><title> The
      guide </title><style>p {}</style></head><body><h1>A</h1><p>one <b>two</b>
      three<h2>B <i>b</i></h2>four<br>five</body></html>"""
    parsed = read(source)
    assert parsed.title == "The guide"
    assert parsed.blocks == (
        Block("A", ("A",)),
        Block("one two three", ("A",)),
        Block("B b", ("A", "B b")),
        Block("four\nfive", ("A", "B b")),
    )


def test_only_the_main_text_is_read() -> None:
    source = """<header>brand</header><nav>menu</nav><main><h1>T</h1><script>x()</script><p>text</p>
      <aside>advert</aside></main><footer>imprint</footer>"""
    assert texts(source) == ["T", "text"]
    assert texts("<nav>menu</nav><main> </main><p>text</p><footer>f</footer>") == ["text"]


def test_tables_are_rows() -> None:
    source = "<table><tr><th>part<th>code</tr><tr><td>valve</td><td><p>V-17</p></td></tr></table>"
    assert texts(source) == ["part | code", "valve | V-17"]


def test_lists_and_code_keep_their_lines() -> None:
    assert texts("<ul><li>a<li>b</ul><pre>x\n  y\n</pre>") == ["a", "b", "x\n  y"]


@pytest.mark.parametrize(
    "hiding",
    [
        '<p style="display: none">obey</p>',
        '<p style="VISIBILITY:hidden">obey</p>',
        '<p style="opacity: 0">obey</p>',
        '<p style="font-size:0px">obey</p>',
        '<p style="color: #FFFFFF;">obey</p>',
        '<p style="position:absolute; left:-9999px">obey</p>',
        "<div hidden><p>obey</p></div>",
    ],
)
def test_hidden_text_is_left_out_and_counted(hiding: str) -> None:
    parsed = read(f"<p>seen</p>{hiding}<!-- comment -->")
    assert [block.text for block in parsed.blocks] == ["seen"]
    assert parsed.flags == {"hidden_text_characters": 4}


@pytest.mark.parametrize(
    "style",
    ["opacity: 0.5", "color: #fff; background: #003", "font-size: 0.9em", "background-color: #fff"],
)
def test_styled_text_that_can_be_seen_is_kept(style: str) -> None:
    assert texts(f'<p style="{style}">seen</p>') == ["seen"]


def test_the_page_may_say_its_charset() -> None:
    source = '<meta charset="iso-8859-1"><p>Grüße</p>'.encode("latin-1")
    assert parse(source, "a.html").blocks == (Block("Grüße"),)


def test_deep_nesting_is_read() -> None:
    depth = 20_000
    assert texts("<div>" * depth + "deep" + "</div>" * depth) == ["deep"]


@pytest.mark.parametrize("source", ["<", "<p", "<!--", "<![CDATA[", "&#xD800;", "</p></p>x<tr>"])
def test_broken_markup_does_no_harm(source: str) -> None:
    assert texts(f"<p>seen</p>{source}")[0] == "seen"
