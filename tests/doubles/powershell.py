"""Runs the part of PowerShell that build-and-run.ps1 is written in, from its grammar's tree.

It is no PowerShell: it knows the syntax and commands that the script uses, and fails on others.
What it shows is what the script means, not how Windows behaves. A name without a value fails.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.doubles.powershell_tree import Node, core, descendants, parse, parts, text_of
from tests.doubles.powershell_values import (
    Table,
    Thrown,
    Value,
    add,
    as_text,
    cast,
    compare,
    many,
    member,
    method,
    one,
    truth,
)

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


class _Return(Exception):
    def __init__(self, values: list[Value]) -> None:
        self.values = values


class _Continue(Exception):
    pass


class Exit(Exception):
    """The script's `exit`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Block:
    """A script block, or a function with parameters: name, type and default."""

    body: tuple[Node, ...]
    parameters: tuple[tuple[str, str, Node | None], ...] = ()


Command = Callable[["Shell", list[Value], dict[str, Value], list[Value]], list[Value]]


@dataclass
class Shell:
    """Scopes, functions, and the commands that a script may call."""

    commands: Mapping[str, Command]
    types: Mapping[str, Callable[..., Value]]
    program: Callable[["Shell", str, list[str], bool], list[Value]]
    scopes: list[dict[str, Value]] = field(default_factory=lambda: [{}])
    functions: dict[str, Block] = field(default_factory=dict)

    def look(self, name: str) -> Value:
        """The value of a variable, in the nearest scope that has it."""
        for scope in reversed(self.scopes):
            if name.lower() in scope:
                return scope[name.lower()]
        message = f"the variable {name} has no value"
        raise NameError(message)

    def put(self, name: str, value: Value) -> None:
        """Sets a variable of the current scope."""
        self.scopes[-1][name.lower()] = value

    def call(self, block: Block, arguments: list[Value], named: Mapping[str, Value]) -> list[Value]:
        """Runs a function or a block in a scope of its own."""
        given = {name.lower(): value for name, value in named.items()}
        left = list(arguments)
        scope: dict[str, Value] = {}
        for name, kind, default in block.parameters:
            if name.lower() in given:
                value = given.pop(name.lower())
            elif left:
                value = left.pop(0)
            else:
                value = self.value(default) if default else None
            scope[name.lower()] = cast(kind, value)
        assert not left, f"{left} for nothing"
        assert not given, f"{given} for nothing"
        self.scopes.append(scope)
        try:
            return self.statements(block.body)
        except _Return as returned:
            return returned.values
        finally:
            self.scopes.pop()

    def statements(self, nodes: tuple[Node, ...]) -> list[Value]:
        """The output of statements, one after the other; `return` ends with what came before."""
        output: list[Value] = []
        for node in nodes:
            try:
                output += self.output(node)
            except _Return as returned:
                raise _Return(output + returned.values) from None
        return output

    def run(self, script: Path) -> None:
        """Runs a script in the current scope."""
        self.statements(tuple(parts(parse(script))))

    def value(self, node: Node) -> Value:
        """A node as a value; several outputs are an array."""
        node = core(node)
        evaluate = getattr(self, f"_{node.type}", None)
        return evaluate(node) if evaluate else one(self.output(node))

    def output(self, node: Node) -> list[Value]:
        """A node as a statement: what it writes."""
        node = core(node)
        state = getattr(self, f"_do_{node.type}", None)
        if state:
            return list(state(node))
        if not hasattr(self, f"_{node.type}"):
            message = f"{node.type} at {node.start_byte}: {text_of(node)[:60]}"
            raise NotImplementedError(message)
        return many(self.value(node))

    # Statements

    def _do_statement_list(self, node: Node) -> list[Value]:
        return self.statements(tuple(parts(node)))

    _do_statement_block = _do_script_block_body = _do_script_block = _do_statement_list

    def _do_param_block(self, node: Node) -> list[Value]:
        for name, kind, default in _parameters(node):
            if name.lower() not in self.scopes[-1]:
                self.put(name, cast(kind, self.value(default) if default else None))
        return []

    def _do_function_statement(self, node: Node) -> list[Value]:
        children = parts(node)[1:]
        name, rest = text_of(children[0]), children[1:]
        parameters: tuple[tuple[str, str, Node | None], ...] = ()
        if rest and rest[0].type == "function_parameter_declaration":
            parameters, rest = tuple(_parameters(rest[0])), rest[1:]
        self.functions[name.lower()] = Block(tuple(rest), parameters)
        return []

    def _do_assignment_expression(self, node: Node) -> list[Value]:
        target, operator = core(node.children[0]), text_of(node.children[1])
        value = self.value(node.children[-1])
        if operator == "+=":
            value = add(self.value(target), value)
        self._assign(target, value)
        return []

    def _assign(self, target: Node, value: Value) -> None:
        children = parts(target)
        if target.type == "variable":
            self.put(text_of(target)[1:], value)
        elif target.type == "array_literal_expression":
            values = [*many(value), *([None] * len(children))]
            for place, child in enumerate(children):
                self._assign(child, values[place])
        elif target.type == "member_access" and children[0].type == "type_literal":
            return  # a property of a .NET class: what the console's encoding is
        elif target.type == "member_access":
            self.value(children[0])[text_of(children[1])] = value
        else:
            key = [child for child in children[1:] if child.type not in "[]"]
            self.value(children[0])[self.value(key[0])] = value

    def _do_if_statement(self, node: Node) -> list[Value]:
        condition, then, *others = (p for p in parts(node) if p.type != "if")
        if truth(self.value(condition)):
            return self.output(then)
        for other in (clause for each in others for clause in _clauses(each)):
            children = [p for p in parts(other) if p.type not in {"elseif", "else"}]
            if len(children) == 1 or truth(self.value(children[0])):
                return self.output(children[-1])
        return []

    def _do_foreach_statement(self, node: Node) -> list[Value]:
        variable, over, body = (p for p in parts(node) if p.type not in {"foreach", "in"})
        output: list[Value] = []
        for value in many(self.value(over)):
            self.put(text_of(variable)[1:], value)
            try:
                output += self.output(body)
            except _Continue:
                continue
        return output

    def _do_switch_statement(self, node: Node) -> list[Value]:
        wanted = one([self.value(d) for d in descendants(node) if d.type == "switch_condition"][:1])
        output: list[Value] = []
        for clause in (d for d in descendants(node) if d.type == "switch_clause"):
            match, body = parts(clause)
            if self.value(match) == wanted:
                output += self.output(body)
        return output

    def _do_try_statement(self, node: Node) -> list[Value]:
        body, *clauses = (p for p in parts(node) if p.type != "try")
        clauses = [clause for each in clauses for clause in _clauses(each)]
        try:
            return self.output(body)
        except (Thrown, ValueError) as problem:
            for clause in clauses:
                kinds = [d for d in descendants(clause) if d.type == "type_literal"]
                if clause.type == "catch_clause" and (
                    not kinds or text_of(kinds[0])[1:-1] == getattr(problem, "kind", "")
                ):
                    self.put("_", str(problem))
                    return self.output(parts(clause)[-1])
            raise
        finally:
            for clause in clauses:
                if clause.type == "finally_clause":
                    self.output(parts(clause)[-1])

    def _do_flow_control_statement(self, node: Node) -> list[Value]:
        word, *rest = parts(node)
        value = self.output(rest[0]) if rest else []
        match text_of(word):
            case "return":
                raise _Return(value)
            case "throw":
                raise value[0] if isinstance(value[0], Thrown) else Thrown("", as_text(value))
            case "exit":
                raise Exit(value[0])
        raise _Continue

    def _do_return(self, _: Node) -> list[Value]:
        raise _Return([])

    def _do_continue(self, _: Node) -> list[Value]:
        raise _Continue

    def _do_pipeline_chain(self, node: Node) -> list[Value]:
        first, *others = parts(node)
        values = self.output(first)
        for other in others:
            values = self._perform(other, values)
        return values

    def _do_command(self, node: Node) -> list[Value]:
        return self._perform(node, [])

    _do_command_name = _do_command

    # Commands

    def _perform(self, node: Node, given: list[Value]) -> list[Value]:
        if node.type == "command_name":
            return self._named(text_of(node), [], {}, given)
        children = parts(node)
        words = [
            core(element)
            for child in children
            for element in (child.children if child.type == "command_elements" else [child])
            if element.type not in {"command_argument_sep", " "}
        ]
        if words[0].type in {"&", ".", "command_invokation_operator"}:
            return self._invoked(text_of(words[0]), words[1], words[2:])
        arguments, named = self._arguments(words[1:])
        return self._named(text_of(words[0]), arguments, named, given)

    def _invoked(self, operator: str, what: Node, words: list[Node]) -> list[Value]:
        target = self.value(what)
        if operator == ".":
            self.run(Path(target))
            return []
        if isinstance(target, Block):
            return self.call(target, [], {})
        arguments, _ = self._arguments([word for word in words if word.type != "2>&1"])
        flat = [as_text(item) for argument in arguments for item in many(argument)]
        return self.program(self, target, flat, any(word.type == "2>&1" for word in words))

    def _arguments(self, words: list[Node]) -> tuple[list[Value], dict[str, Value]]:
        arguments: list[Value] = []
        named: dict[str, Value] = {}
        expected = ""
        for word in words:
            if word.type == "command_parameter":
                expected = text_of(word)[1:].lower()
                named[expected] = True
            elif expected and expected not in _SWITCHES:
                named[expected] = self._word(word)
                expected = ""
            else:
                arguments.append(self._word(word))
        return arguments, named

    def _word(self, word: Node) -> Value:
        return text_of(word) if word.type == "generic_token" else self.value(word)

    def _named(
        self, name: str, arguments: list[Value], named: dict[str, Value], given: list[Value]
    ) -> list[Value]:
        if name.lower() in self.functions:
            return self.call(self.functions[name.lower()], arguments, named)
        return self.commands[name.lower()](self, arguments, named, given)

    # Expressions

    def _variable(self, node: Node) -> Value:
        name = text_of(node).lstrip("$@").strip("{}")
        constants = {"true": True, "false": False, "null": None}
        return constants[name] if name in constants else self.look(name)

    _braced_variable = _variable

    def __getattr__(self, name: str) -> Value:
        if name == "_$_":
            return lambda node: self.look("_")
        raise AttributeError(name)

    def _verbatim_string_characters(self, node: Node) -> str:
        return text_of(node)[1:-1].replace("''", "'")

    def _expandable_string_literal(self, node: Node) -> str:
        source, start = node.text, node.start_byte
        text, place = "", 1
        for child in (core(c) for c in node.children):
            if child.type in {"variable", "braced_variable", "sub_expression", "$_"}:
                text += _unescaped(source[place : child.start_byte - start])
                text += as_text(self.value(child))
                place = child.end_byte - start
        return text + _unescaped(source[place:-1])

    def _decimal_integer_literal(self, node: Node) -> int:
        return int(text_of(node))

    def _real_literal(self, node: Node) -> float:
        return float(text_of(node))

    def _simple_name(self, node: Node) -> str:
        return text_of(node)

    _generic_token = _simple_name

    def _type_literal(self, node: Node) -> str:
        return text_of(node)[1:-1]

    def _script_block_expression(self, node: Node) -> Block:
        return Block(tuple(parts(node)))

    def _parenthesized_expression(self, node: Node) -> Value:
        return self.value(parts(node)[0])

    _switch_condition = _parenthesized_expression

    def _sub_expression(self, node: Node) -> Value:
        return one(self.statements(tuple(parts(node))))

    def _array_expression(self, node: Node) -> list[Value]:
        return self.statements(tuple(parts(node)))

    def _array_literal_expression(self, node: Node) -> list[Value]:
        return [self.value(child) for child in parts(node)]

    def _hash_literal_expression(self, node: Node) -> Table:
        table = Table()
        for entry in (d for d in _hash_entries(node)):
            key, *rest = parts(entry)
            table[self.value(key)] = self.value(rest[0])
        return table

    def _cast_expression(self, node: Node) -> Value:
        kind, inner = parts(node)
        return cast(text_of(kind)[1:-1], self.value(inner))

    def _expression_with_unary_operator(self, node: Node) -> Value:
        operator, operand = (core(child) for child in node.children)
        if text_of(operator) == "-":
            return -self.value(operand)
        assert text_of(operator).lower() == "-not", text_of(operator)
        return not truth(self.value(operand))

    def _additive_expression(self, node: Node) -> Value:
        left, operator, right = (core(child) for child in node.children)
        assert text_of(operator) == "+", text_of(operator)
        return add(self.value(left), self.value(right))

    _additive_argument_expression = _additive_expression

    def _multiplicative_expression(self, node: Node) -> Value:
        left, operator, right = (core(child) for child in node.children)
        number = self.value(right)
        return self.value(left) * (number if text_of(operator) == "*" else 1 / number)

    _multiplicative_argument_expression = _multiplicative_expression

    def _format_expression(self, node: Node) -> str:
        left, _, right = (core(child) for child in node.children)
        layout = re.sub(r"\{(\d),-(\d+)\}", r"{\1:<\2}", self.value(left))
        layout = re.sub(r"\{(\d),(\d+)\}", r"{\1:>\2}", layout)
        return layout.format(*many(self.value(right)))

    _format_argument_expression = _format_expression

    def _logical_expression(self, node: Node) -> bool:
        left, operator, right = (core(child) for child in node.children)
        first = truth(self.value(left))
        if text_of(operator).lower() == "-and":
            return first and truth(self.value(right))
        assert text_of(operator).lower() == "-or"
        return first or truth(self.value(right))

    def _comparison_expression(self, node: Node) -> Value:
        left, operator, right = (core(child) for child in node.children)
        if text_of(operator).lower() in {"-match", "-notmatch"}:
            found = re.search(self.value(right), as_text(self.value(left)), re.IGNORECASE)
            if found:
                self.put("matches", dict(enumerate([found[0], *found.groups()])))
            return bool(found) == (text_of(operator).lower() == "-match")
        return compare(text_of(operator).lower(), self.value(left), self.value(right))

    _comparison_argument_expression = _comparison_expression

    def _member_access(self, node: Node) -> Value:
        owner, name = parts(node)
        if owner.type == "type_literal":
            return self.types[f"{text_of(owner)[1:-1]}::{text_of(name)}".lower()]
        return member(self.value(owner), text_of(name))

    def _element_access(self, node: Node) -> Value:
        owner, *rest = (child for child in parts(node) if child.type not in "[]")
        values, key = self.value(owner), self.value(rest[0])
        return values[key]

    def _invokation_expression(self, node: Node) -> Value:
        owner, name, *rest = parts(node)
        arguments = [self.value(argument) for argument in _listed(rest)]
        if owner.type == "type_literal":
            return self.types[f"{text_of(owner)[1:-1]}::{text_of(name)}".lower()](*arguments)
        return method(self.value(owner), text_of(name), arguments)


def _parameters(node: Node) -> Iterator[tuple[str, str, Node | None]]:
    for parameter in (d for d in descendants(node) if d.type == "script_parameter"):
        children = [core(child) for child in parameter.children]
        kinds = [
            text_of(d)[1:-1]
            for child in children[:-1]
            for d in descendants(child)
            if d.type == "type_literal"
        ]
        (name,) = (text_of(child)[1:] for child in children if child.type == "variable")
        defaults = [child for child in children if child.type == "script_parameter_default"]
        yield name, kinds[-1] if kinds else "", core(defaults[0].children[-1]) if defaults else None


def _listed(lists: list[Node]) -> Iterator[Node]:
    for child in (inner for each in lists for inner in each.children if inner.type not in "()"):
        yield from parts(child) if child.child_count > 1 else [core(child)]


def _clauses(node: Node) -> list[Node]:
    return parts(node) if node.type in {"elseif_clauses", "catch_clauses"} else [node]


def _hash_entries(node: Node) -> Iterator[Node]:
    for child in node.children:
        if child.type == "hash_entry":
            yield child
        elif child.type == "hash_literal_body":
            yield from _hash_entries(child)


def _unescaped(text: str) -> str:
    return re.sub(r"`(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)


_SWITCHES = {
    *("nonewline", "directory", "literalpath", "force", "passthru", "completed", "raw"),
    *("casesensitive", "nonewwindow"),
}
