"""Markdown of models as HTML: it looks as it was meant, and can do nothing."""

import re

import pytest

from master.console.markdown import as_html

ALLOWED_TAGS = {
    "p",
    "a",
    "strong",
    "code",
    "pre",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
ALLOWED_ATTRIBUTES = {"href", "rel", "target", "class", "title", "role", "aria-label", "tabindex"}


async def html(text: str) -> str:
    found = await as_html(text, below=2)
    assert found is not None
    return str(found)


async def test_what_models_write_is_shown_as_it_was_meant() -> None:
    got = await html("# The wheel\n\nIt is **old**.\n\n- one\n- two\n\n```py\nturn(1 < 2)\n```\n")
    assert "<h3>The wheel</h3>" in got, "a page has two levels of headings above an answer"
    assert "<strong>old</strong>" in got
    assert got.count("<li>") == 2
    assert "turn(1 &lt; 2)" in got


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ([1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 6, 6]),
        ([2, 2], [3, 3]),
        ([1, 3, 3, 2], [3, 4, 4, 4]),
        ([4, 1, 2, 1], [3, 3, 4, 3]),
    ],
)
async def test_no_level_of_headings_is_left_out(written: list[int], shown: list[int]) -> None:
    got = await html("\n\n".join(f"{'#' * level} Title" for level in written))
    assert re.findall(r"<h(\d)>Title</h\1>", got) == [str(level) for level in shown]


async def test_a_table_can_be_reached_by_keyboard_and_has_no_style_of_its_own() -> None:
    got = await html("| a | b |\n|--:|---|\n| 1 | 2 |\n")
    assert '<div class="table" role="region" aria-label="Table" tabindex="0"><table>' in got
    assert '<td class="text-align-right">1</td>' in got
    assert "style" not in got, "the console's policy allows no such attribute"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a <b onclick=alert(1)>b</b>",
        "<!-- --><svg/onload=alert(1)>",
        "&lt;script&gt;",
        "```<script>\nalert(1)\n```",
        '```"onload="alert(1)\nx\n```',
        "`<script>alert(1)</script>`",
        "| <script> |\n|---|\n| <b> |",
        '[x](https://a.b "a\\" onclick=alert(1) \\"b")',
        "[x](https://a.b/%22onclick=alert(1))",
        "[<script>](https://a.b)",
        "<https://a.b/\"onclick='alert(1)'>",
    ],
)
async def test_html_stays_text(text: str) -> None:
    got = await html(text)
    tags = re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)((?:[^>\"]|\"[^\"]*\")*)>", got)
    assert {tag.lower() for tag, _ in tags} <= ALLOWED_TAGS
    attributes = [
        name for _, said in tags for name in re.findall(r"([a-zA-Z-]+)\s*=\s*\"[^\"]*\"", said)
    ]
    assert set(attributes) <= ALLOWED_ATTRIBUTES
    assert not re.search(r"<[^>]*\son[a-z]+\s*=[^\"]*>", re.sub(r"\"[^\"]*\"", '""', got))


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        "&#106;avascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "/console/keys",
        "//elsewhere.example",
        "?page=2",
        "https",
    ],
)
async def test_only_links_to_elsewhere_are_links(link: str) -> None:
    for text in (f"[x]({link})", f"[x](<{link}>)", f"[x]\n\n[x]: {link}", f"<{link}>"):
        assert "<a" not in await html(text)


@pytest.mark.parametrize("link", ["https://a.b/c?d=e&f", "http://a.b", "mailto:a@b.c"])
async def test_a_link_tells_nobody_where_it_was(link: str) -> None:
    got = await html(f"[x]({link})")
    assert 'rel="noopener noreferrer nofollow" target="_blank"' in got


async def test_a_picture_is_a_link_because_to_load_it_would_tell_who_reads() -> None:
    got = await html("![a mill](https://elsewhere.example/p.png?secret)")
    assert "<img" not in got
    assert 'href="https://elsewhere.example/p.png?secret"' in got


@pytest.mark.parametrize(
    "text", ["a" * 50_001, "[" * 1_001], ids=["long", "brackets that each look for their end"]
)
async def test_what_would_take_long_is_left_as_it_was_written(text: str) -> None:
    assert await as_html(text, below=2) is None


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "\x00", "\u202e", "\ud800", "*" * 9_000, ">" * 9_000]
)
async def test_odd_texts_do_no_harm(text: str) -> None:
    assert "<script" not in await html(text)
