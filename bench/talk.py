"""One chat at a time over a plain socket, for measurements that act in the middle of an answer."""

import json
import re
import socket
import time
import urllib.request
from types import TracebackType
from typing import Self

from bench.engine import WORD
from bench.load import Target

_WORD = WORD.encode()
_ID = re.compile(rb"\r\nx-millrace-request-id:[ ]?([0-9a-f-]+)\r\n", re.IGNORECASE)
_SECONDS = 30.0


class Silence(Exception):
    """The answer did not come, or not whole: such a measurement means nothing."""


class Talk:
    """A streamed chat. Times are `time.monotonic()`, which all processes of a machine share."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socket = socket.create_connection(("127.0.0.1", target.port), _SECONDS)
        self._received = b""
        self._socket.sendall(target.request())

    @property
    def words(self) -> int:
        """How many have come."""
        return self._received.count(_WORD)

    @property
    def request(self) -> str:
        """The id of the request."""
        found = _ID.search(self._received)
        if found is None:
            raise Silence(f"no request id in {self._received[:500]!r}")
        return found[1].decode()

    def read_until(self, words: int) -> float:
        """Read until so many words have come; returns when the last of them came."""
        while self.words < words:
            self.read()
        return time.monotonic()

    def read(self) -> float:
        """Read some more; returns when it came. Raises Silence at the end."""
        received = self._socket.recv(65536)
        if not received:
            raise Silence(f"the connection was closed: {self._received[-500:]!r}")
        self._received += received
        return time.monotonic()

    @property
    def is_whole(self) -> bool:
        """Whether the answer has come to its end."""
        return b"data: [DONE]" in self._received

    def leave(self) -> float:
        """Close the connection; returns when."""
        left_at = time.monotonic()
        self._socket.close()
        return left_at

    def delete(self) -> float:
        """Have the request cancelled by its id; returns when that was sent."""
        url = f"http://127.0.0.1:{self._target.port}/v1/requests/{self.request}"
        headers = {"authorization": f"Bearer {self._target.key}"}
        order = urllib.request.Request(url, headers=headers, method="DELETE")
        sent_at = time.monotonic()
        with urllib.request.urlopen(order, timeout=_SECONDS) as answer:
            state = json.load(answer)["state"]
        if state != "cancelled":
            raise Silence(f"the request is {state} after DELETE")
        return sent_at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
