"""The contract as files: JSON Schema of every message, and an AsyncAPI 3.0 document.

With them a worker can be written in any language. `docs/schemas/` holds the current output and a
test compares it with the code; `make schemas` writes it again.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from queue_schemas import messages
from queue_schemas.channels import CHANNELS, PARAMETERS, Channel, Exchange
from queue_schemas.codec import SIGNATURE_HEADER
from queue_schemas.messages import Message
from queue_schemas.topology import Queue

Document = dict[str, Any]

WIRE_VERSION = 1
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_AMQP_BINDING = "0.3.0"
_TAGS = ("version", "type", "status")
"""What readers tell messages apart by. Our code fills them in; another writer must send them."""


class _Plain(GenerateJsonSchema):
    """Leaves out the titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def export(directory: Path) -> list[Path]:
    """Write every schema below `directory`; returns the files in a stable order."""
    files = {directory / "asyncapi.json": asyncapi()}
    for message in messages.ALL:
        files[directory / f"v{WIRE_VERSION}" / f"{message.__name__}.json"] = json_schema(message)
    for path, document in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8", newline="\n")
    return sorted(files)


def json_schema(message: type[Message]) -> Document:
    """The JSON Schema (2020-12) of one message as it must be on the wire."""
    schema = message.model_json_schema(schema_generator=_Plain)
    return {"$schema": _DIALECT, **_require_tags(schema)}


def asyncapi() -> Document:
    """The AsyncAPI 3.0 document: every channel with its arguments, and who does what on it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millrace",
            "version": f"{WIRE_VERSION}.0.0",
            "description": "Messages between the master, its workers and whoever watches.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.key: _channel(channel) for channel in CHANNELS},
        "operations": {
            name: operation for channel in CHANNELS for name, operation in _operations(channel)
        },
        "components": {
            "messages": {message.__name__: _message(message) for message in messages.ALL},
            "schemas": _schemas(),
        },
    }


def _channel(channel: Channel) -> Document:
    parameters = re.findall(r"\{(\w+)\}", channel.address or "")
    document: Document = {
        "address": channel.address,
        "summary": channel.summary,
        "messages": {
            message.__name__: {"$ref": f"#/components/messages/{message.__name__}"}
            for message in channel.carries
        },
        "parameters": {name: {"description": PARAMETERS[name]} for name in parameters},
        "bindings": {"amqp": _binding(channel.at)},
    }
    if isinstance(channel.at, Queue):
        # The AMQP binding has no place for the arguments of `queue.declare`.
        document["x-arguments"] = channel.at.arguments()
    if channel.bound_to:
        document["x-bound-to"] = channel.bound_to
    return {key: value for key, value in document.items() if value != {}}


def _binding(at: Queue | Exchange) -> Document:
    if isinstance(at, Queue):
        entity: Document = {
            "name": at.name,
            "durable": not at.exclusive,
            "exclusive": at.exclusive,
            "autoDelete": at.exclusive,
        }
        return {"is": "queue", "queue": entity, "bindingVersion": _AMQP_BINDING}
    entity = {"name": at.name, "type": at.type, "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": entity, "bindingVersion": _AMQP_BINDING}


def _operations(channel: Channel) -> Iterator[tuple[str, Document]]:
    name = channel.key[0].upper() + channel.key[1:]
    kept = isinstance(channel.at, Queue) and not channel.at.exclusive
    for sender in channel.senders:
        # Kept means persistent, confirmed, and returned when there is no such queue.
        send = _operation(channel, sender.role, deliveryMode=2 if kept else 1, mandatory=kept)
        if sender.only:
            start = f"#/channels/{channel.key}/messages/"
            send["messages"] = [{"$ref": start + message.__name__} for message in sender.only]
        yield f"{sender.role}Sends{name}", {"action": "send", **send}
    for role in channel.receivers:
        yield f"{role}Receives{name}", {"action": "receive", **_operation(channel, role, ack=kept)}


def _operation(channel: Channel, role: str, **amqp: int) -> Document:
    return {
        "channel": {"$ref": f"#/channels/{channel.key}"},
        "tags": [{"name": role}],
        "bindings": {"amqp": {**amqp, "bindingVersion": _AMQP_BINDING}},
    }


def _message(message: type[Message]) -> Document:
    said = "With a key set: the key's id, a colon, HMAC-SHA256 of the body in hex."
    signature = {"type": "string", "description": said}
    return {
        "name": message.__name__,
        "summary": " ".join((message.__doc__ or "").split()),
        "headers": {"type": "object", "properties": {SIGNATURE_HEADER: signature}},
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
    }


def _schemas() -> Document:
    _, schema = models_json_schema(
        [(message, "validation") for message in messages.ALL],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Plain,
    )
    sent = {message.__name__ for message in messages.ALL}
    return {
        name: _require_tags(definition) if name in sent else definition
        for name, definition in sorted(schema["$defs"].items())
    }


def _require_tags(schema: Document) -> Document:
    tags = [tag for tag in _TAGS if "const" in schema["properties"].get(tag, {})]
    return {**schema, "required": tags + schema.get("required", [])}
