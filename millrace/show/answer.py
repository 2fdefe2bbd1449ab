"""An answer's text for a terminal: markdown's most frequent marks become styles, line by line."""

import re

from rich.text import Text

_HEADING = re.compile(r"#{1,6} +")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_INLINE = re.compile(r"\*\*(?P<strong>[^*\n]+)\*\*|`(?P<code>[^`\n]+)`|(?P<mark>\[\d{1,3}\])")
_STYLES = {"strong": "bold", "code": "cyan", "mark": "magenta"}


class AnswerText:
    """Takes text in pieces and gives whole lines out; `pending` is the line that still grows."""

    def __init__(self) -> None:
        self._unfinished = ""
        self._in_code = False

    def feed(self, text: str) -> list[Text]:
        """Add text; returns the lines that it completed."""
        *whole, self._unfinished = (self._unfinished + text).split("\n")
        return [self._line(line) for line in whole]

    def pending(self) -> Text:
        """The unfinished line as it would look now."""
        return _styled(self._unfinished, self._in_code)

    def close(self) -> list[Text]:
        """The last line, if the text did not end with a line break."""
        rest, self._unfinished = self._unfinished, ""
        return [self._line(rest)] if rest else []

    def _line(self, line: str) -> Text:
        line = line.rstrip("\r")
        if _FENCE.match(line):
            self._in_code = not self._in_code
            return Text(line, style="dim")
        return _styled(line, self._in_code)


def _styled(line: str, in_code: bool) -> Text:
    # Control characters of an answer must not steer the terminal.
    line = "".join(c if c.isprintable() or c == "\t" else "�" for c in line).expandtabs(4)
    if in_code:
        return Text(line, style="cyan")
    if heading := _HEADING.match(line):
        return Text(line[heading.end() :], style="bold underline")
    text, position = Text(), 0
    for match in _INLINE.finditer(line):
        text.append(line[position : match.start()])
        kind = str(match.lastgroup)
        text.append(match[kind], style=_STYLES[kind])
        position = match.end()
    return text.append(line[position:])
