"""One client of Millrace's API over a connection that it keeps."""

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

from bench.site import Millrace

_SECONDS = 300.0


class Api:
    """Sends requests one after the other."""

    def __init__(self, mill: Millrace) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", mill.port, timeout=_SECONDS)
        self._headers = {
            "authorization": f"Bearer {mill.key}",
            "content-type": "application/json",
        }

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer that must be a good one."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        received = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {received[:500]!r}")
        return json.loads(received)

    def search(self, words: str) -> tuple[float, Mapping[str, float]]:
        """Search the default collection; seconds, and milliseconds by stage as it says."""
        began = time.perf_counter()
        answer = self.send("POST", "/v1/search", {"query": words, "top": 10})
        seconds = time.perf_counter() - began
        assert answer["hits"], f"nothing was found for {words!r}"
        assert not answer["degraded"], answer["degraded"]
        return seconds, answer["latency_ms"]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
