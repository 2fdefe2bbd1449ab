"""Text of an engine as it can be sent and stored: no NUL, no half of a surrogate pair."""


class PlainText:
    """Repairs one channel's text piece by piece; a pair that was cut in two is joined."""

    def __init__(self) -> None:
        self._half = ""

    def take(self, piece: str) -> str:
        """What may go on now; a first half waits for its second one."""
        if not self._half and piece.isascii():
            return piece.replace("\0", "\ufffd")
        text, self._half = self._half + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return joined.replace("\0", "\ufffd")
