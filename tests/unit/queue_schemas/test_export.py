"""The exported contract: current, deterministic and consistent in itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from queue_schemas import messages, topology
from queue_schemas.channels import CHANNELS, Exchange
from queue_schemas.export import asyncapi, export, json_schema

COMMITTED = Path(__file__).parents[3] / "docs" / "schemas"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    node = document
    for key in reference[2:].split("/"):
        node = node[key]
    return node


def test_the_committed_files_are_those_of_the_code(tmp_path: Path) -> None:
    written = {path.relative_to(tmp_path): path.read_text() for path in export(tmp_path)}
    committed = {
        path.relative_to(COMMITTED): path.read_text() for path in COMMITTED.rglob("*.json")
    }
    assert committed == written, "run `make schemas`"


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in export(tmp_path / "a")]
    second = [path.read_bytes() for path in export(tmp_path / "b")]
    assert first == second


def test_every_message_has_a_file(tmp_path: Path) -> None:
    names = {path.stem for path in export(tmp_path) if path.parent.name == "v1"}
    assert names == {message.__name__ for message in messages.ALL}


@pytest.mark.parametrize("message", messages.ALL, ids=lambda cls: cls.__name__)
def test_a_schema_is_valid_2020_12_and_demands_what_readers_need(
    message: type[messages.Message],
) -> None:
    schema = json_schema(message)
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "$id" not in schema
    assert {"version", "status" if "status" in schema["properties"] else "type"} <= set(
        schema["required"]
    )


def test_all_references_resolve(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert len(found) > len(messages.ALL)
    for reference in found:
        assert resolve(document, reference) is not None


def test_every_message_has_a_channel_a_sender_and_a_receiver(document: dict[str, Any]) -> None:
    ways: dict[str, set[str]] = {message.__name__: set() for message in messages.ALL}
    for operation in document["operations"].values():
        channel = resolve(document, operation["channel"]["$ref"])
        only = [item["$ref"].rsplit("/", 1)[1] for item in operation.get("messages", [])]
        for name in only or channel["messages"]:
            ways[name].add(operation["action"])
    assert ways == {name: {"send", "receive"} for name in ways}


def test_an_operation_sends_only_what_its_channel_carries(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        start = operation["channel"]["$ref"] + "/messages/"
        assert all(item["$ref"].startswith(start) for item in operation.get("messages", []))


def test_every_queue_and_exchange_of_the_topology_is_there(document: dict[str, Any]) -> None:
    arguments = {
        channel["bindings"]["amqp"]["queue"]["name"]: channel["x-arguments"]
        for channel in document["channels"].values()
        if channel["bindings"]["amqp"]["is"] == "queue"
    }
    queues = [
        *topology.SHARED,
        topology.subtasks("{slug}"),
        topology.tokens("{master}"),
        topology.control("{worker}"),
        topology.watcher("{watcher}"),
        topology.N8N,
    ]
    assert arguments == {queue.name: queue.arguments() for queue in queues}
    exchanges = {channel.at.name for channel in CHANNELS if isinstance(channel.at, Exchange)}
    assert exchanges == {topology.CONTROL_EXCHANGE, topology.EVENTS_EXCHANGE}


def test_addresses_and_parameters_agree(document: dict[str, Any]) -> None:
    for channel in document["channels"].values():
        named = set(re.findall(r"\{(\w+)\}", channel["address"] or ""))
        assert set(channel.get("parameters", {})) == named


def test_keys_are_words_that_asyncapi_allows(document: dict[str, Any]) -> None:
    components = document["components"]
    for group in (document["channels"], document["operations"], *components.values()):
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in group)


def test_a_shared_queue_is_sent_to_persistently(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        queue = resolve(document, operation["channel"]["$ref"])["bindings"]["amqp"].get("queue")
        if operation["action"] == "send" and queue and queue["durable"]:
            assert operation["bindings"]["amqp"]["deliveryMode"] == 2
            assert operation["bindings"]["amqp"]["mandatory"] is True


def test_the_files_are_plain_json() -> None:
    for path in COMMITTED.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
