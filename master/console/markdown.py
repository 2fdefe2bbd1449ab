"""Answers as they were meant to look: the Markdown that models write, as HTML that can do nothing.

HTML in an answer stays text, and a picture becomes a link: what a model says must not make the
browser of whoever reads it ask another server for anything. Headings begin below those of a page.
"""

import asyncio
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_MOST = 50_000
"""Characters: of prose a tenth of a second, of the worst table a second, in a thread."""
_MOST_BRACKETS = 1_000
"""Each that is never closed is searched for until the end."""
_ELSEWHERE = ("https://", "http://", "mailto:")
_DEEPEST_HEADING = 6


class _Answers(MarkdownIt):
    """CommonMark with tables and strikethrough, without HTML and pictures."""

    def __init__(self) -> None:
        super().__init__("js-default")
        self.disable("image")
        self.add_render_rule("table_open", _wide_begin)
        self.add_render_rule("table_close", _wide_end)

    def validateLink(self, url: str) -> bool:  # noqa: N802 - the library's name for it
        """Only to elsewhere: no scripts, and no pages of the console's own."""
        return url.lower().startswith(_ELSEWHERE)


def _wide_begin(*_: object) -> str:
    """A table scrolls in itself, and by the keyboard too."""
    return '<div class="table" role="region" aria-label="Table" tabindex="0"><table>\n'


def _wide_end(*_: object) -> str:
    return "</table></div>\n"


_ANSWERS = _Answers()


async def as_html(text: str, *, below: int) -> Markup | None:
    """An answer as HTML; None where it is too much to be worth the processor's time.

    `below`: the level of the page's heading above it.
    """
    if len(text) > _MOST or text.count("[") > _MOST_BRACKETS:
        return None
    return await asyncio.to_thread(_html, text, below)


def _html(text: str, below: int) -> Markup:
    tokens = _ANSWERS.parse(text)
    _place_headings(tokens, below)
    _adapt(tokens)
    return Markup(_ANSWERS.renderer.render(tokens, _ANSWERS.options, {}))  # noqa: S704 - escaped by the library, which lets no HTML through


def _place_headings(tokens: Sequence[Token], below: int) -> None:
    """Levels by how the headings lie in each other: no level is left out, wherever it begins."""
    above: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            above = [*(tag for tag in above if tag < token.tag), token.tag]
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(_DEEPEST_HEADING, below + len(above))}"


def _adapt(tokens: Sequence[Token]) -> None:
    for token in tokens:
        if token.type == "link_open":
            token.attrSet("rel", "noopener noreferrer nofollow")
            token.attrSet("target", "_blank")
        elif "style" in token.attrs:  # of cells; the console's policy allows no such attribute
            token.attrs = {"class": str(token.attrs["style"]).replace(":", "-")}
        _adapt(token.children or ())
