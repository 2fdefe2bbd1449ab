"""What was ever on the wire stays readable; what is newer does no harm."""

import json
from pathlib import Path

import jsonschema_rs
import pytest

from queue_schemas import messages
from queue_schemas.codec import UnreadableMessage, decode, encode
from queue_schemas.export import json_schema
from queue_schemas.messages import Message

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("v*/*.json"))
MESSAGES = {message.__name__: message for message in messages.ALL}
ADAPTERS = {
    messages.SubtaskRequest: messages.SUBTASK,
    messages.Started: messages.WORKER,
    messages.TokenChunk: messages.STREAM,
    messages.Notice: messages.STREAM,
    messages.Completed: messages.RESULT,
    messages.Failed: messages.RESULT,
    messages.Cancel: messages.CONTROL,
    messages.Resend: messages.CONTROL,
    messages.Drain: messages.CONTROL,
    messages.Heartbeat: messages.WORKER,
    messages.Event: messages.EVENT,
    messages.FeedbackNote: messages.FEEDBACK,
}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_message = pytest.mark.parametrize("message", messages.ALL, ids=lambda cls: cls.__name__)


def kind(path: Path) -> type[Message]:
    return MESSAGES[path.name.split(".", maxsplit=1)[0]]


def read(path: Path, **changes: object) -> Message:
    body = json.dumps({**json.loads(path.read_bytes()), **changes}).encode()
    return decode(ADAPTERS[kind(path)], body, {})


@every_file
def test_a_golden_message_is_read_as_its_own_kind(path: Path) -> None:
    assert type(read(path)) is kind(path)


@every_file
def test_nothing_of_a_golden_message_is_lost_when_it_is_written_again(path: Path) -> None:
    written = json.loads(encode(read(path))[0])
    golden = json.loads(path.read_bytes())
    assert {key: written[key] for key in golden} == golden


@every_file
def test_fields_of_a_newer_writer_are_ignored(path: Path) -> None:
    assert read(path, invented_later={"deep": [1]}) == read(path)


@every_file
@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_version_is_refused_and_named(path: Path, version: object) -> None:
    with pytest.raises(UnreadableMessage, match="version"):
        read(path, version=version)


@every_file
def test_a_golden_message_fits_the_exported_schema(path: Path) -> None:
    schema = jsonschema_rs.validator_for(json_schema(kind(path)), validate_formats=True)
    schema.validate(json.loads(path.read_bytes()))


@every_message
def test_every_field_is_in_a_golden_file(message: type[Message]) -> None:
    shipped = {
        field for path in FILES if kind(path) is message for field in json.loads(path.read_bytes())
    }
    assert shipped == set(message.model_fields), "a new field needs a golden file of its own"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v1/*.least.json")), ids=lambda p: p.stem)
def test_least_is_really_the_least(path: Path) -> None:
    body = json.loads(path.read_bytes())
    assert set(body) == set(json_schema(kind(path))["required"])


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        ("SubtaskRequest", "attempt", 0),
        ("SubtaskRequest", "timeout_seconds", 0),
        ("SubtaskRequest", "timeout_seconds", "Infinity"),
        ("SubtaskRequest", "request", "not-a-uuid"),
        ("SubtaskRequest", "messages", [1]),
        ("TokenChunk", "offset", -1),
        ("TokenChunk", "channel", "shouting"),
        ("Failed", "kind", "mysterious"),
        ("Completed", "status", "nearly"),
        ("Heartbeat", "slots", 0),
    ],
)
def test_a_value_outside_the_contract_is_unreadable(
    message: str, field: str, value: object
) -> None:
    with pytest.raises(UnreadableMessage):
        read(GOLDEN / "v1" / f"{message}.full.json", **{field: value})
