"""YAML with the line of every value, and without its surprises.

PyYAML lets the second of two equal keys win, and reads `2026-01-01` as a date; here the first is
an error and the second is text.
"""

from dataclasses import dataclass
from typing import Any

import yaml

_Path = tuple[int | str, ...]

_MOST_VALUES = 500_000
"""With aliases counted wherever they stand: a few of them, one in another, fill any memory."""
_BITS = 64


class YamlError(Exception):
    """The text is not YAML that we read. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own way to say it
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML does; what it cannot read is an error with its line. Raises `YamlError`."""
        line = node.start_mark.line + 1
        try:
            found = super().construct_object(node, deep)
        except (AttributeError, KeyError, ValueError) as error:  # of `0x_`, or `!!bool x`
            kind = node.tag.rpartition(":")[2]
            raise YamlError(line, f"this cannot be read as {kind}") from error
        if isinstance(found, int) and found.bit_length() > _BITS:
            raise YamlError(line, f"a number of more than {_BITS} bits")
        return found


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and its nodes to find lines by."""

    value: Any
    root: yaml.Node | None

    def line(self, path: _Path) -> int:
        """The line of the value at this path, or of the deepest parent that is there."""
        node, line = self.root, 1
        for part in path:
            key, node = _child(node, part)
            if node is None:
                break
            line = (key or node).start_mark.line + 1
        return line

    def line_of_text(self, text: str) -> int | None:
        """The line of the last scalar that reads so."""
        lines = [node.start_mark.line + 1 for node in _scalars(self.root) if node.value == text]
        return lines[-1] if lines else None


def parse(text: str) -> Document:
    """Read one document. Raises `YamlError`."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(None, None)
        if _size(root, set(), {}) > _MOST_VALUES:
            raise YamlError(1, f"aliases make more than {_MOST_VALUES:,} values of it")
        return Document(loader.construct_document(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "this is not YAML"
        raise YamlError(mark.line + 1 if mark else 1, problem) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, "a character that YAML does not allow") from error
    except RecursionError as error:
        raise YamlError(1, "nested too deeply") from error


def _size(node: yaml.Node, parents: set[int], sizes: dict[int, int]) -> int:
    """How many values it stands for. Refuses equal keys, and a value that contains itself."""
    if id(node) in parents:
        raise YamlError(node.start_mark.line + 1, "this value contains itself")
    if id(node) in sizes:  # an alias to what was looked at before
        return sizes[id(node)]
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicate_keys(node)
        children = [value for _, value in node.value]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    within = parents | {id(node)}
    sizes[id(node)] = 1 + sum(_size(child, within, sizes) for child in children)
    return sizes[id(node)]


def _refuse_duplicate_keys(node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(line, "a key must be plain text")
        if key.value in first:
            message = f"the key {key.value!r} was given before, on line {first[key.value]}"
            raise YamlError(line, message)
        first[key.value] = line


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    if isinstance(node, yaml.MappingNode):
        # Merged keys (`<<`) come before a mapping's own, so the last one counts.
        for key, value in reversed(node.value):
            if key.value == str(part):
                return key, value
    return None, None


def _scalars(node: yaml.Node | None) -> list[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        return [node]
    if isinstance(node, yaml.SequenceNode):
        return [scalar for item in node.value for scalar in _scalars(item)]
    if isinstance(node, yaml.MappingNode):
        return [scalar for _, value in node.value for scalar in _scalars(value)]
    return []
