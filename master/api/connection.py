"""The connection under a request, for a route that must cut it off."""

from collections.abc import Callable

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_CUT = "millrace.cut"


class Connection(HttpToolsProtocol):
    """uvicorn's, and an extension of the scope to end it without waiting for its client."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {_CUT: {"now": self.transport.abort}}


def cut(scope: Scope) -> bool:
    """End the connection now; what its client has not taken is thrown away.

    False: the server below cannot do that.
    """
    found = (scope.get("extensions") or {}).get(_CUT)
    if found is None:
        return False
    end: Callable[[], None] = found["now"]
    end()
    return True
