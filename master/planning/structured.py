"""Asking a model for a JSON object, and reading its answer without trusting it."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

Read = TypeVar("Read", bound=BaseModel)


class Unreadable(ValueError):
    """The answer is not what was asked for; the message says why, for a person."""


def object_format(name: str, properties: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """`response_format` for an object that has all of these properties.

    Written out: engines differ in what they take from pydantic's schemas.
    """
    schema: dict[str, JsonValue] = {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }
    wanted: dict[str, JsonValue] = {"name": name, "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": wanted}


def read_object(answer: str, shape: type[Read]) -> Read:
    """The object in an answer, whatever stands around it. Raises Unreadable."""
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise Unreadable("it is not JSON")
    try:
        # The database stores no NUL, which JSON can spell.
        said = answer[start : end + 1].replace("\\u0000", "")
        return shape.model_validate(json.loads(said))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise Unreadable(f"{where or 'it'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error


def read_answer(answer: str | None, shape: type[Read]) -> tuple[Read | None, str]:
    """The object in a step's answer, or None and why there is none."""
    if answer is None:
        return None, "it failed"
    try:
        return read_object(answer, shape), ""
    except Unreadable as error:
        return None, str(error)
