"""The page of faults names tests that exist, and has every fault."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
ROWS = re.findall(r"^\| (B\d\d) \| (.+) \|$", PAGE, re.MULTILINE)


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text("utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_a_test_that_is_named_as_proof_exists(file: str, test: str) -> None:
    assert (TESTS / file).is_file(), file
    assert test in functions(TESTS / file)


def test_every_fault_of_the_matrix_has_its_row() -> None:
    assert [number for number, _ in ROWS] == [f"B{number:02}" for number in range(1, 51)]


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _ in ROWS])
def test_a_fault_has_a_test_or_a_reason_why_not(number: str, row: str) -> None:
    *_, proof = row.split(" | ")
    assert row.count(" | ") == 2, number
    assert "::" in proof or proof.startswith("not run: ")
