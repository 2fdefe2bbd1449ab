"""What the API reference says of each operation, out of the OpenAPI document. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

Schema = Mapping[str, Any]

_CODE = re.compile(r"`([^`]+)`")
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "like `{}`",
}
_METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Piece:
    """A piece of a type's name; with a link where it is a schema of its own."""

    text: str
    href: str = ""


Type = tuple[Piece, ...]


@dataclass(frozen=True)
class Field:
    """A field of an object, or a parameter."""

    name: str
    type: Type
    required: bool
    words: Markup
    bounds: Markup
    place: str = ""
    """Of a parameter: path, query or header."""


@dataclass(frozen=True)
class Content:
    """A body, an answer or a schema: what it is, and its fields if it is an object."""

    name: str
    """Its media type; of a schema its name."""
    type: Type
    words: Markup
    fields: Sequence[Field]
    anchor: str = ""


@dataclass(frozen=True)
class Answer:
    """What comes back with a status."""

    status: str
    words: Markup
    contents: Sequence[Content]


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    anchor: str
    method: str
    path: str
    summary: str
    words: Markup
    needs_key: bool
    parameters: Sequence[Field]
    body: Sequence[Content]
    answers: Sequence[Answer]
    """Successes."""
    errors: Sequence[Answer]


@dataclass(frozen=True)
class Reference:
    """All of it."""

    title: str
    version: str
    words: Markup
    tags: Mapping[str, Sequence[Operation]]
    schemas: Sequence[Content]


def reference(document: Mapping[str, Any]) -> Reference:
    """The reference of an OpenAPI 3.1 document."""
    known: Mapping[str, Schema] = document.get("components", {}).get("schemas", {})
    tags: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if said := methods.get(method):
                tag = next(iter(said.get("tags", ())), "Other")
                tags.setdefault(tag, []).append(_operation(method, path, said, known))
    about = document["info"]
    schemas = sorted(
        (_schema(key, schema) for key, schema in known.items()), key=lambda one: one.name.lower()
    )
    return Reference(
        about["title"], about["version"], in_words(about.get("description")), tags, schemas
    )


def in_words(text: str | None) -> Markup:
    """A description, with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text or ""))))  # noqa: S704  escaped


def _operation(
    method: str, path: str, said: Mapping[str, Any], known: Mapping[str, Schema]
) -> Operation:
    answers = [
        Answer(status, in_words(answer.get("description")), _contents(answer, known))
        for status, answer in said.get("responses", {}).items()
    ]
    return Operation(
        anchor=re.sub(r"[^a-z0-9]+", "-", f"{method} {path}".lower()).strip("-"),
        method=method.upper(),
        path=path,
        summary=said.get("summary", ""),
        words=in_words(said.get("description")),
        needs_key=bool(said.get("security")),
        parameters=[_parameter(each) for each in said.get("parameters", ())],
        body=_contents(said.get("requestBody", {}), known),
        answers=[each for each in answers if each.status.startswith("2")],
        errors=[each for each in answers if not each.status.startswith("2")],
    )


def _contents(said: Mapping[str, Any], known: Mapping[str, Schema]) -> list[Content]:
    return [
        _content(media, each.get("schema", {}), known)
        for media, each in said.get("content", {}).items()
    ]


def _content(media: str, schema: Schema, known: Mapping[str, Schema]) -> Content:
    found = known.get(_key(schema["$ref"]), {}) if "$ref" in schema else schema
    fields = _fields(found)
    if also := schema.get("x-also"):  # fields of a form that are described apart from its files
        fields += _fields(known.get(_key(also["$ref"]), {}))
    return Content(media, type_of(schema), in_words(found.get("description")), fields)


def _schema(key: str, schema: Schema) -> Content:
    words = in_words(schema.get("description"))
    return Content(short(key), type_of(schema), words, _fields(schema), _anchor(key))


def _fields(schema: Schema) -> list[Field]:
    required = set(schema.get("required", ()))
    return [
        _field(name, each, required=name in required)
        for name, each in schema.get("properties", {}).items()
    ]


def _parameter(said: Mapping[str, Any]) -> Field:
    schema = {"description": said.get("description"), **said.get("schema", {})}
    return _field(said["name"], schema, said["in"], required=bool(said.get("required")))


def _field(name: str, schema: Schema, place: str = "", *, required: bool) -> Field:
    words, bounds = in_words(schema.get("description")), in_words("; ".join(_bounds(schema)))
    return Field(name, type_of(schema), required, words, bounds, place)


def _bounds(schema: Schema) -> Iterator[str]:
    """What limits a value, and what it is when nothing is said."""
    for part in (schema, *schema.get("anyOf", ())):
        for name, words in _BOUNDS.items():
            if name in part:
                bound = part[name]
                yield words.format(f"{bound:g}" if isinstance(bound, float) else bound)
    if schema.get("default") is not None:
        yield f"default `{json.dumps(schema['default'], ensure_ascii=False)}`"


def type_of(schema: Schema) -> Type:
    """What a value is, in words: `list of Message`, `string or null`."""
    if "$ref" in schema:
        key = _key(schema["$ref"])
        return (Piece(short(key), f"#{_anchor(key)}"),)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return (Piece(" | ".join(json.dumps(value, ensure_ascii=False) for value in values)),)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _joined([type_of(each) for each in schema[choice]])
    return _plain(schema)


def _plain(schema: Schema) -> Type:
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return (Piece(" or ".join(kind)),)
    if kind == "array":
        return (Piece("list of "), *type_of(schema.get("items", {})))
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, dict) and values:
        return (Piece("object of "), *type_of(values))
    form = schema.get("format")
    return (Piece(f"{kind} ({form})" if form else kind),)


def _joined(types: Sequence[Type]) -> Type:
    """One or the other, each said once."""
    joined: list[Piece] = []
    for each in dict.fromkeys(types):
        joined += [Piece(" or "), *each] if joined else each
    return tuple(joined)


def short(key: str) -> str:
    """A schema's name without the modules that tell it from another of that name."""
    return key.rpartition("__")[2].strip("_") or key


def _key(ref: str) -> str:
    return ref.rpartition("/")[2]


def _anchor(key: str) -> str:
    return f"schema-{key}"
