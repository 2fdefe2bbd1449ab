"""The API server of Kubernetes as a pod sees it: HTTPS with its own CA, and patches of pods."""

import contextlib
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "eyJ.of-a-pod"


@dataclass
class Patch:
    """One PATCH that came."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class ApiServer:
    """What came, and what is answered."""

    url: str
    account: Path
    """The folder of a service account: token and CA."""
    status: int = 200
    patches: list[Patch] = field(default_factory=list)


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """A server on a free port; skips where no certificate can be made."""
    key = _certificate(folder)
    (folder / "token").write_text(f"{TOKEN}\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    api = ApiServer(f"https://127.0.0.1:{server.server_address[1]}", folder)
    server.api = api  # type: ignore[attr-defined]  # the handlers know nothing but their server
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _certificate(folder: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    key = folder / "server.key"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=kubernetes", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(folder / "ca.crt")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key


class _Handler(BaseHTTPRequestHandler):
    def do_PATCH(self) -> None:
        api: ApiServer = self.server.api  # type: ignore[attr-defined]  # set above
        body = self.rfile.read(int(self.headers["Content-Length"]))
        api.patches.append(Patch(self.path, dict(self.headers), json.loads(body)))
        self.send_response(api.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at the patches."""
