"""What to change in the settings of Open WebUI, so that it works with Millrace. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from millrace.problems import Problem

Json = dict[str, Any]

HEADERS: Final[Mapping[str, str]] = {
    "X-Millrace-Task": "{{TASK}}",
    "X-Millrace-Message-Id": "{{MESSAGE_ID}}",
    "X-Millrace-User-Message-Id": "{{USER_MESSAGE_ID}}",
    "X-OpenWebUI-Chat-Id": "{{CHAT_ID}}",
    "X-OpenWebUI-User-Id": "{{USER_ID}}",
}
"""Of our connection. The last two are those that it would forward itself, if it were set to."""
TASK_MODEL: Final = "millrace/auto"
"""Whatever it is, a background prompt goes to the cheapest model: its header tells."""

_PUBLIC: Final = {"principal_type": "user", "principal_id": "*", "permission": "read"}


@dataclass(frozen=True)
class Change:
    """One thing that is set, in words; never a key."""

    what: str
    before: str
    after: str


def place_of(config: Mapping[str, Any], url: str) -> int | None:
    """Which of its connections leads to this address."""
    for index, known in enumerate(config.get("OPENAI_API_BASE_URLS") or []):
        if str(known).rstrip("/") == url:
            return index
    return None


def connection(
    config: Mapping[str, Any], url: str, key: str | None
) -> tuple[Json, int, list[Change]]:
    """The settings with our connection in them, its place, and what is new. Raises `Problem`.

    Other connections and other settings of ours are kept as they are.
    """
    urls = list(config.get("OPENAI_API_BASE_URLS") or [])
    keys = [*(config.get("OPENAI_API_KEYS") or []), *([""] * len(urls))][: len(urls)]
    configs = dict(config.get("OPENAI_API_CONFIGS") or {})
    changes: list[Change] = []
    index = place_of(config, url)
    if index is None:
        if not key:
            raise Problem("a new connection needs a key: --api-key or MILLRACE_API_KEY.")
        index = len(urls)
        urls, keys = [*urls, url], [*keys, key]
        changes.append(Change("connection", "none", url))
    elif key and keys[index] != key:
        keys[index] = key
        changes.append(Change("key of the connection", "another", "yours"))
    before = dict(configs.get(str(index)) or configs.get(url) or {})
    headers = dict(before.get("headers") or {})
    missing = {name: value for name, value in HEADERS.items() if headers.get(name) != value}
    if missing:
        changes.append(Change("headers of the connection", "without", ", ".join(missing)))
    if before.get("enable") is False:
        changes.append(Change("state of the connection", "off", "on"))
    ours = {name.lower() for name in HEADERS}
    others = {name: value for name, value in headers.items() if name.lower() not in ours}
    configs[str(index)] = {**before, "enable": True, "headers": {**others, **HEADERS}}
    if not config.get("ENABLE_OPENAI_API"):
        changes.append(Change("OpenAI API", "off", "on"))
    wanted = {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": urls,
        "OPENAI_API_KEYS": keys,
        "OPENAI_API_CONFIGS": configs,
    }
    return wanted, index, changes


def task_model(config: Mapping[str, Any], wanted: str | None) -> tuple[Json, list[Change]]:
    """The settings of background prompts with their model.

    One that an administrator chose stays, unless another one is asked for.
    """
    before = str(config.get("TASK_MODEL_EXTERNAL") or "")
    after = wanted or before or TASK_MODEL
    changed = {**config, "TASK_MODEL_EXTERNAL": after}
    if before == after:
        return changed, []
    return changed, [Change("model of background prompts", before or "that of the chat", after)]


def own_models(models: Mapping[str, Any], index: int) -> list[str]:
    """The ids of the models that a connection has."""
    found = models.get("data")
    listed = found if isinstance(found, list) else []
    return [
        str(each["id"])
        for each in listed
        if isinstance(each, dict) and each.get("urlIdx") == index and "id" in each
    ]


def grants(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Json]]:
    """Who may use each model that not everybody may use yet: those who may, and everybody."""
    known = {record.get("id"): record.get("access_grants") or [] for record in records}
    wanted: dict[str, list[Json]] = {}
    for name in names:
        before = [_grant(each) for each in known.get(name, []) if isinstance(each, dict)]
        if _PUBLIC not in before:
            wanted[name] = [*before, dict(_PUBLIC)]
    return wanted


def _grant(found: Mapping[str, Any]) -> Json:
    return {name: found.get(name) for name in _PUBLIC}
