"""From the setting MILLRACE_RERANKER to a reranker."""

from importlib import import_module
from urllib.parse import urlsplit

from master.retrieval.rerankers.lexical import Lexical
from master.retrieval.rerankers.protocol import Reranker

LEXICAL = "lexical"
CROSS_ENCODER = "cross-encoder:"
KNOWN = f"{LEXICAL}, {CROSS_ENCODER}NAME_OR_FOLDER, or a URL that begins with http:// or https://"


def is_known(setting: str) -> bool:
    """Whether this names a reranker; it may still fail when it is first used."""
    rest = setting.removeprefix(CROSS_ENCODER)
    named = rest != setting and bool(rest.strip())
    return setting == LEXICAL or named or _is_url(setting)


def _is_url(setting: str) -> bool:
    try:
        parts = urlsplit(setting)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def make_reranker(setting: str = LEXICAL, key: str | None = None) -> Reranker:
    """The reranker that a setting names; the key is for a URL.

    Raises ValueError where it names none.
    """
    if not is_known(setting):
        raise ValueError(f"{setting!r} is no reranker: use {KNOWN}")
    if setting == LEXICAL:
        return Lexical()
    # Modules by name: most installations need neither torch nor a client.
    made: Reranker
    if setting.startswith(CROSS_ENCODER):
        module = import_module("master.retrieval.rerankers.cross_encoder")
        made = module.CrossEncoder(setting.removeprefix(CROSS_ENCODER))
    else:
        module = import_module("master.retrieval.rerankers.remote")
        made = module.make(setting, key)
    return made
