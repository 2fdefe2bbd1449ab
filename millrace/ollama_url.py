"""Where Ollama listens, from the many ways people write `OLLAMA_HOST`."""

from collections.abc import Mapping
from urllib.parse import urlsplit

DEFAULT = "http://127.0.0.1:11434"
_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what a server binds, not a client


def from_environment(environment: Mapping[str, str]) -> str:
    """The URL that `OLLAMA_HOST` means, or the usual one."""
    return normalised(environment.get("OLLAMA_HOST", ""))


def normalised(value: str) -> str:
    """`host`, `host:port`, `:port` or a URL as a URL. Raises ValueError where it is none."""
    value = value.strip().rstrip("/")
    if not value:
        return DEFAULT
    with_scheme = value if "://" in value else f"http://{value}"
    parts = urlsplit(with_scheme)
    if parts.scheme not in _SCHEME_PORTS:
        raise ValueError(f"{value!r} is not an http:// or https:// address")
    host = parts.hostname or "127.0.0.1"
    host = _ANY_ADDRESS.get(host, host)
    host = f"[{host}]" if ":" in host else host
    port = parts.port or (_PORT if "://" not in value else _SCHEME_PORTS[parts.scheme])
    return f"{parts.scheme}://{host}:{port}{parts.path}"
