"""Values as PowerShell has them: what its operators and members make of them."""

import re
from collections.abc import Callable
from typing import Any

Value = Any


class Thrown(Exception):
    """What `throw` threw, by the name of its .NET class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Table(dict[str, Value]):
    """A hashtable: its keys have no case."""

    def __getitem__(self, key: str) -> Value:
        return self.get(str(key).lower())

    def __setitem__(self, key: str, value: Value) -> None:
        super().__setitem__(str(key).lower(), value)


def one(values: list[Value]) -> Value:
    """What a pipeline's output is worth as a value."""
    return values[0] if len(values) == 1 else (values or None)


def many(value: Value) -> list[Value]:
    """A value as a pipeline hands it on."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def as_text(value: Value) -> str:
    """As PowerShell puts it into a string."""
    if isinstance(value, list):
        return " ".join(as_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def truth(value: Value) -> bool:
    """An array of one is as true as what is in it."""
    return truth(value[0]) if isinstance(value, list) and len(value) == 1 else bool(value)


def add(left: Value, right: Value) -> Value:
    """`+`: arrays take more members, strings are joined, numbers added."""
    if isinstance(left, list):
        return left + (right if isinstance(right, list) else [right])
    if isinstance(left, str):
        return left + as_text(right)
    return left + right


def _fold(value: Value) -> Value:
    return value.lower() if isinstance(value, str) else value


def _contains(left: Value, right: Value) -> bool:
    return _fold(right) in [_fold(item) for item in many(left)]


def _split(left: str, right: Value) -> list[str]:
    pattern, most = right if isinstance(right, list) else (right, 0)
    return re.split(pattern, left, maxsplit=max(0, most - 1))


def _replace(left: str, right: Value) -> str:
    pattern, new = right if isinstance(right, list) else (right, "")
    return re.sub(pattern, new, left)


_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "-eq": lambda left, right: _fold(left) == _fold(right),
    "-ne": lambda left, right: _fold(left) != _fold(right),
    "-cne": lambda left, right: left != right,
    "-lt": lambda left, right: left < right,
    "-gt": lambda left, right: left > right,
    "-contains": _contains,
    "-notcontains": lambda left, right: not _contains(left, right),
    "-ccontains": lambda left, right: right in many(left),
    "-like": lambda left, right: right.strip("*") in left,
    "-join": lambda left, right: right.join(as_text(item) for item in many(left)),
    "-split": _split,
    "-replace": _replace,
    "-is": lambda left, right: type(left).__name__ == right.rpartition(".")[2],
}


def compare(operator: str, left: Value, right: Value) -> Value:
    """The operators between values; strings are the same in any case, unless it is a `-c…`."""
    return _OPERATORS[operator](left, right)


_CASTS: dict[str, Callable[[Value], Value]] = {
    "string": as_text,
    "string[]": lambda value: [as_text(item) for item in many(value)],
    "double": float,
    "int": int,
    "bool": truth,
    "switch": truth,
    "version": lambda value: tuple(int(number) for number in value.split(".")),
    "void": lambda _: None,
}


def cast(kind: str, value: Value) -> Value:
    """A value made one of a type; of others it stays as it is."""
    make = _CASTS.get(kind.lower())
    return make(value) if make else value


def member(owner: Value, name: str) -> Value:
    """`.Name` of a value; what is not there fails, as in strict mode."""
    if isinstance(owner, Table):
        if name.lower() == "keys":
            return list(owner)
        assert name.lower() in owner, f"no {name} in {sorted(owner)}"
        return owner[name]
    if isinstance(owner, dict):
        return owner[name]
    if not hasattr(owner, name):
        raise Thrown("PropertyNotFoundException", name)
    return getattr(owner, name)


def method(owner: Value, name: str, arguments: list[Value]) -> Value:
    """`.Name(…)` of a string, a table or an object."""
    names = {"Trim": "strip", "TrimEnd": "rstrip", "Replace": "replace", "Contains": "__contains__"}
    if isinstance(owner, Table) and name == "ContainsKey":
        return arguments[0].lower() in owner
    if isinstance(owner, float) and name == "ToString":
        return f"{owner:.1f}"
    return getattr(owner, names.get(name, name))(*arguments)
