"""What n8n is given: credentials from the environment, workflows with their addresses. Pure.

The workflows in the repository name credentials and hold none. What is no secret but differs from
place to place stands in each workflow's node `Settings`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from millrace.problems import Problem, one_line

Credential = dict[str, Any]
Workflow = dict[str, Any]

WORKFLOWS: Final = Path(__file__).parents[1] / "workflows" / "n8n"
"""Of the checkout; the wheel has none."""
ERROR_WORKFLOW: Final = "mrErrorHandling"
_SHORTEST_KEY: Final = 16
_CONNECTIONS: Final = 5
"""Of each workflow node to Postgres."""
_AMQP_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_NEVER, _MAYBE, _ALWAYS = "disable", "allow", "require"
_SSL: Final = {
    "disable": _NEVER,
    "allow": _MAYBE,
    "prefer": _MAYBE,
    "require": _ALWAYS,
    "verify-ca": _ALWAYS,
    "verify-full": _ALWAYS,
}

DATABASE: Final = "MILLRACE_N8N_DATABASE_URL"
BROKER: Final = "MILLRACE_N8N_RABBITMQ_URL"
WEBHOOK_KEY: Final = "MILLRACE_N8N_WEBHOOK_KEY"
WEBHOOK_HEADER: Final = "X-Millrace-Webhook-Key"
_ADDRESSES: Final = {
    "master_url": "MILLRACE_URL",
    "openwebui_url": "MILLRACE_OPENWEBUI_URL",
    "alert_url": "MILLRACE_N8N_ALERT_URL",
}


def credentials(environment: Mapping[str, str]) -> list[Credential]:
    """All credentials as `n8n import:credentials` takes them: secrets in plain. Raises Problem."""
    key = _needed(environment, WEBHOOK_KEY, "Who calls the webhook must show it.")
    if len(key) < _SHORTEST_KEY:
        raise Problem(f"{WEBHOOK_KEY} needs {_SHORTEST_KEY} characters or more.")
    api_key = _needed(environment, "MILLRACE_API_KEY", "Make one with `millrace keys create n8n`.")
    addresses = settings(environment)
    found = [
        ("mrPostgres", "Millrace Postgres", "postgres", _postgres(environment)),
        ("mrRabbitmq", "Millrace RabbitMQ", "rabbitmq", _rabbitmq(environment)),
        (
            "mrWebhook",
            "Millrace webhook",
            "httpHeaderAuth",
            {"name": WEBHOOK_HEADER, "value": key} | _only_for(""),
        ),
        (
            "mrApi",
            "Millrace API",
            "httpBearerAuth",
            {"token": api_key} | _only_for(addresses.get("master_url", "")),
        ),
        ("mrOpenWebui", "Open WebUI", "httpCustomAuth", _openwebui(environment, addresses)),
    ]
    return [
        {"id": id_, "name": name, "type": kind, "data": data} for id_, name, kind, data in found
    ]


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Addresses that the workflows' `Settings` are given; what is not set stays as it is."""
    found = {}
    for name, variable in _ADDRESSES.items():
        if url := environment.get(variable, "").strip():
            if urlsplit(url).scheme not in {"http", "https"}:
                raise Problem(
                    f"{variable} must begin with http:// or https://, not {one_line(url)!r}."
                )
            kept = url if name == "alert_url" else url.rstrip("/").removesuffix("/v1")
            found[name] = kept
    return found


def overwrite(made: list[Credential]) -> str:
    """`CREDENTIALS_OVERWRITE_DATA`: it fills blank credentials in by their type."""
    return json.dumps({each["type"]: each["data"] for each in made if each["data"]})


def workflows(folder: Path, addresses: Mapping[str, str]) -> list[Workflow]:
    """The workflows with their settings filled in; the one for errors first. Raises Problem."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise Problem(f"there are no workflows in {folder}. Give --workflows the folder.")
    found = []
    for file in files:
        try:
            found.append(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise Problem(f"{file} cannot be read: {one_line(str(error))}.") from error
    filled = [_fill(workflow, addresses) for workflow in found]
    return sorted(filled, key=lambda workflow: workflow["id"] != ERROR_WORKFLOW)


def commands(n8n: str, made: list[Workflow], credentials_file: str, folder: str) -> list[str]:
    """What is run, in this order; paths as they are given."""
    return [
        f"{n8n} import:credentials --input={credentials_file}",
        f"{n8n} import:workflow --separate --input={folder}",
        *(f"{n8n} publish:workflow --id={workflow['id']}" for workflow in made),
    ]


def published(n8n: str) -> str:
    """What lists the ids of published workflows, one a line among others."""
    return f"{n8n} list:workflow --active=true --onlyId"


def unpublish(n8n: str, workflow: str) -> str:
    """What must be run before a published workflow can be imported again."""
    return f"{n8n} unpublish:workflow --id={workflow}"


def _fill(workflow: Workflow, addresses: Mapping[str, str]) -> Workflow:
    for assignment in assignments(workflow):
        assignment["value"] = addresses.get(assignment["name"], assignment["value"])
    return workflow


def assignments(workflow: Workflow) -> Iterator[dict[str, Any]]:
    """What stands in the node `Settings` of a workflow."""
    for node in workflow["nodes"]:
        if node["name"] == "Settings":
            yield from node["parameters"]["assignments"]["assignments"]


def _needed(environment: Mapping[str, str], variable: str, remedy: str) -> str:
    value = environment.get(variable, "").strip()
    if not value:
        raise Problem(f"{variable} is not set. {remedy}")
    return value


def broker_url(environment: Mapping[str, str]) -> str:
    """Where n8n finds RabbitMQ: an address of its own, else everybody's."""
    own = environment.get(BROKER, "").strip()
    return own or _needed(environment, "RABBITMQ_URL", "n8n takes events and sends feedback there.")


def _postgres(environment: Mapping[str, str]) -> dict[str, Any]:
    remedy = "Make a user: CREATE USER n8n IN ROLE millrace_n8n PASSWORD '…';"
    url = _parts(DATABASE, _needed(environment, DATABASE, remedy), {"postgresql", "postgres"})
    mode = parse_qs(url.query).get("sslmode", ["prefer" if url.hostname else "disable"])[-1]
    if mode not in _SSL:
        raise Problem(f"{DATABASE}: there is no sslmode {one_line(mode)!r}.")
    local = url.hostname in {"127.0.0.1", "localhost", "::1"} and "sslmode" not in url.query
    return {
        "host": url.hostname or "localhost",
        "port": url.port or 5432,
        "database": unquote(url.path.lstrip("/")) or "postgres",
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "ssl": _NEVER if local else _SSL[mode],
        "maxConnections": _CONNECTIONS,
    }


def _rabbitmq(environment: Mapping[str, str]) -> dict[str, Any]:
    url = _parts("the address of RabbitMQ", broker_url(environment), set(_AMQP_PORTS))
    return {
        "hostname": url.hostname or "localhost",
        "port": url.port or _AMQP_PORTS[url.scheme],
        "username": unquote(url.username or "guest"),
        "password": unquote(url.password or "guest"),
        "vhost": unquote(url.path[1:]) or "/",
        "ssl": url.scheme == "amqps",
    }


def _openwebui(environment: Mapping[str, str], addresses: Mapping[str, str]) -> dict[str, Any]:
    key = environment.get("MILLRACE_OPENWEBUI_API_KEY", "").strip()
    if not key:
        return {}
    headers = json.dumps({"headers": {"Authorization": f"Bearer {key}"}})
    return {"json": headers} | _only_for(addresses.get("openwebui_url", ""))


def _only_for(url: str) -> dict[str, str]:
    """Which host a credential may be sent to; without one: to none."""
    host = urlsplit(url).hostname or ""
    if not host:
        return {"allowedHttpRequestDomains": "none"}
    return {"allowedHttpRequestDomains": "domains", "allowedDomains": host}


def _parts(what: str, url: str, schemes: set[str]) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Problem(f"{what} is not a URL.") from None
    if parts.scheme not in schemes:
        raise Problem(f"{what} must begin with {max(schemes)}://.")
    return parts
