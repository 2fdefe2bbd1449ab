"""The tree of a PowerShell script, by its grammar."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import tree_sitter
import tree_sitter_powershell
from tree_sitter import Language, Parser

_PARSER = Parser(Language(tree_sitter_powershell.language()))


_PUNCTUATION = frozenset(
    ("{", "}", "(", ")", ";", ",", "@{", "@(", "$(", "|", "=", " ", "param", "::", ".")
) | {"comment", "command_argument_sep", "empty_statement"}


@dataclass(eq=False)
class Node:
    """A node of the grammar's tree, made once: the library makes a new one for each look."""

    type: str
    text: str
    start_byte: int
    end_byte: int
    children: tuple["Node", ...]

    @property
    def child_count(self) -> int:
        """How many parts the grammar gives it."""
        return len(self.children)

    @cached_property
    def core(self) -> "Node":
        """The innermost node of the same text: the grammar has a level for each precedence."""
        if len(self.children) == 1 and len(self.children[0].text) == len(self.text):
            return self.children[0].core
        return self

    @cached_property
    def parts(self) -> tuple["Node", ...]:
        """Its children without punctuation, comments and blanks."""
        return tuple(child.core for child in self.children if child.type not in _PUNCTUATION)


@cache
def _tree(source: bytes) -> Node:
    root = _PARSER.parse(source).root_node
    assert not root.has_error

    def copy(node: tree_sitter.Node) -> Node:
        children = tuple(copy(child) for child in node.children)
        text = (node.text or b"").decode()
        return Node(node.type, text, node.start_byte, node.end_byte, children)

    return copy(root)


def parse(script: Path) -> Node:
    """The tree of a script, which is ASCII; a syntax error fails."""
    return _tree(script.read_bytes())


def core(node: Node) -> Node:
    """See `Node.core`."""
    return node.core


def parts(node: Node) -> list[Node]:
    """See `Node.parts`."""
    return list(node.parts)


def text_of(node: Node) -> str:
    """Its source."""
    return node.text


def descendants(node: Node) -> Iterator[Node]:
    """Itself and everything below."""
    yield node
    for child in node.children:
        yield from descendants(child)
