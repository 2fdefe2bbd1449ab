"""RabbitMQ's management API, where it happens to be reachable. Nothing depends on it."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx2

URL_ENV = "MILLRACE_RABBITMQ_MANAGEMENT_URL"
_USUAL_PORT = 15672
_SECONDS = 2.0


async def unacked(amqp_url: str) -> Mapping[str, int] | None:
    """Messages in consumers' hands, by queue; None where nobody says. A few seconds old."""
    parts = urlsplit(amqp_url)
    vhost = unquote(parts.path.removeprefix("/")) or "/"
    base = os.environ.get(URL_ENV) or f"http://{parts.hostname}:{_USUAL_PORT}"
    login = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    try:
        async with httpx2.AsyncClient(timeout=_SECONDS, auth=login, trust_env=False) as http:
            answer = await http.get(f"{base}/api/queues/{quote(vhost, safe='')}")
            queues: list[dict[str, Any]] = answer.raise_for_status().json()
            return {q["name"]: int(q["messages_unacknowledged"]) for q in queues}
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError):
        return None
