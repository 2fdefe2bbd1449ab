"""HTML: the main text in order, with the headings above it."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning
from bs4.element import CData, NavigableString, PageElement, Tag

from master.retrieval.chunking import Block
from master.retrieval.parsing.headings import Headings
from master.retrieval.parsing.parsed import Parsed
from master.retrieval.parsing.plain import decode

_DROPPED: Final = frozenset(
    {
        "aside",
        "audio",
        "button",
        "canvas",
        "dialog",
        "embed",
        "footer",
        "head",
        "iframe",
        "input",
        "map",
        "math",
        "nav",
        "noscript",
        "object",
        "script",
        "select",
        "style",
        "svg",
        "template",
        "textarea",
        "video",
    }
)
_BLOCKS: Final = frozenset(
    {
        "address",
        "article",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "form",
        "header",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    }
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_HIDDEN: Final = re.compile(
    r"display:none|visibility:(?:hidden|collapse)|opacity:0?\.?0*(?:[;%!]|$)"
    r"|font-size:0?\.?0*(?:[a-z%]{0,4})(?:[;!]|$)|text-indent:-\d{3,}|(?:left|top):-\d{4,}"
    r"|(?<![-\w])color:(?:white|transparent|#fff|#ffffff|rgb\(255,255,255\))(?:[;!]|$)"
)
_CHARSET: Final = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE
)


def parse(body: bytes, media_type: str | None = None) -> Parsed:
    """Blocks of a page. Hidden text is left out and counted."""
    text, wrong = decode(body, _with_charset(body, media_type))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read well enough
        soup = BeautifulSoup(text, "html.parser")
    page = _Page()
    blocks = tuple(page.blocks(_main(soup)))
    title = " ".join(soup.title.get_text().split()) if soup.title else page.headings.first
    flags = {"cleaned_characters": wrong, "hidden_text_characters": page.hidden}
    return Parsed(blocks, flags=flags, title=title or None)


def _with_charset(body: bytes, media_type: str | None) -> str | None:
    """The header's charset wins over the page's own."""
    if media_type and "charset" in media_type.lower():
        return media_type
    found = _CHARSET.search(body[:2048])
    return f"text/html; charset={found[1].decode('ascii')}" if found else None


def _main(soup: BeautifulSoup) -> Tag:
    for name in ("main", "article"):
        found = soup.find_all(name, limit=2)
        only = found[0] if len(found) == 1 else None
        if isinstance(only, Tag) and only.find(string=lambda text: bool(text and text.strip())):
            return only
    return soup


@dataclass
class _Page:
    """One walk through a page, without recursion: nesting may be as deep as the body is long."""

    headings: Headings = field(default_factory=Headings)
    hidden: int = 0
    held: list[str] = field(default_factory=list)
    verbatim: int = 0
    rows: int = 0

    def blocks(self, root: Tag) -> Iterator[Block]:
        """What the tree shows."""
        waiting: list[tuple[PageElement, bool]] = [(root, False)]
        while waiting:
            node, is_end = waiting.pop()
            if isinstance(node, NavigableString):
                self._text(node)
            elif isinstance(node, Tag) and is_end:
                yield from self._leave(node)
            elif isinstance(node, Tag) and not self._is_left_out(node):
                yield from self._enter(node)
                waiting.append((node, True))
                waiting.extend((child, False) for child in reversed(node.contents))
        yield from self._flushed()

    def _is_left_out(self, tag: Tag) -> bool:
        if tag.name in _DROPPED:
            return True
        style = re.sub(r"\s+", "", str(tag.get("style") or "")).lower()
        # White text on a background of its own is shown.
        is_shown = "background" in style and "color:" in style and "display:none" not in style
        if tag.has_attr("hidden") or (style and _HIDDEN.search(style) and not is_shown):
            self.hidden += sum(len(text.strip()) for text in tag.strings)
            return True
        return False

    def _enter(self, tag: Tag) -> Iterator[Block]:
        if tag.name in _HEADINGS or (tag.name in _BLOCKS and not self.rows):
            yield from self._flushed()
        if tag.name == "br":
            self.held.append("\n")
        elif tag.name in {"td", "th"} and self.held:
            self.held.append(" | ")
        elif self.rows:
            self.held.append(" " if tag.name in _BLOCKS else "")
        self.verbatim += tag.name == "pre"
        self.rows += tag.name == "tr"

    def _leave(self, tag: Tag) -> Iterator[Block]:
        self.verbatim -= tag.name == "pre" and self.verbatim > 0
        self.rows -= tag.name == "tr"
        if level := _HEADINGS.get(tag.name):
            said = "".join(self.held)
            self.held = []
            yield from self.headings.enter(level, said)
        elif tag.name in _BLOCKS and not self.rows:
            yield from self._flushed(verbatim=tag.name == "pre")

    def _text(self, text: NavigableString) -> None:
        if type(text) in {NavigableString, CData}:  # comments are its subclasses
            self.held.append(text if self.verbatim else re.sub(r"\s+", " ", text))

    def _flushed(self, *, verbatim: bool = False) -> Iterator[Block]:
        text = "".join(self.held)
        self.held = []
        if not verbatim:
            text = re.sub(r"[ \t]*\n[ \t]*|[ \t]{2,}", _gap, text).strip()
        if text.strip():
            yield Block(text.strip("\n"), self.headings.path)


def _gap(found: re.Match[str]) -> str:
    return "\n" if "\n" in found[0] else " "
