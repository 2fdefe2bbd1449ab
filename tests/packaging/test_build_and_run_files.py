"""The files behind build-and-run: the grammar; plan, words and both scripts fit together."""

import re
from pathlib import Path

import pytest

from tests.doubles.cluster_programs import REPOSITORY
from tests.doubles.powershell_tree import Node, core, descendants, parse, text_of

CLUSTER = REPOSITORY / "scripts" / "cluster"
POWERSHELL = [REPOSITORY / "build-and-run.ps1", *sorted(CLUSTER.glob("*.ps1"))]
SHELL = [REPOSITORY / "build-and-run.sh", *sorted(CLUSTER.glob("*.sh"))]
ONE_MACHINE = CLUSTER / "one-machine.ps1"
CMDLETS = {
    *("Get-Command", "Get-Content", "Get-ChildItem", "Get-FileHash", "Get-Item", "Join-Path"),
    *("New-Item", "New-Object", "Out-Host", "Pop-Location", "Push-Location", "Read-Host"),
    *("ConvertFrom-Json", "ForEach-Object", "Where-Object", "Select-Object", "Set-Content"),
    *("Remove-Item", "Set-StrictMode", "Start-Process", "Test-Path"),
    *("Write-Host", "Write-Progress", "Write-Verbose"),
}
FLAGS = {
    *("docker", "cluster", "chosen", "machine", "ollama", "native", "foreign", "registry"),
    *("archive", "upgrade", "no-keda", "doors", "drop", "keep", "nodes"),
}


def plan() -> list[list[str]]:
    lines = (CLUSTER / "plan").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def names_of_words() -> set[str]:
    text = (CLUSTER / "words").read_text()
    return set(re.findall(r"^([a-z-]+)$", text, re.MULTILINE))


def starts(tree: Node) -> list[Node]:
    """The places that start a program or a block."""
    nodes = [node for node in descendants(tree) if node.type == "command"]
    return [node for node in nodes if text_of(core(node.children[0])) in {"&", "Start-Process"}]


@pytest.mark.parametrize("script", POWERSHELL, ids=lambda path: path.name)
def test_powershell_parses_and_is_plain_ascii(script: Path) -> None:
    parse(script)
    # Windows PowerShell 5.1 reads a file without a byte order mark in the country's encoding.
    assert script.read_text().isascii()


def test_powershell_calls_only_its_functions_and_known_commands() -> None:
    trees = [parse(script) for script in POWERSHELL]
    nodes = [node for tree in trees for node in descendants(tree)]
    functions = {text_of(node) for node in nodes if node.type == "function_name"}
    called = {text_of(node) for node in nodes if node.type == "command_name"}
    assert called - functions <= CMDLETS
    assert functions <= called, "a function that nobody calls"


def test_powershell_starts_programs_in_one_function() -> None:
    trees = [parse(script) for script in POWERSHELL if script != ONE_MACHINE]
    functions = [
        node for tree in trees for node in descendants(tree) if node.type == "function_statement"
    ]
    started = {
        (re.split(r"[ (]", text_of(function))[1], text_of(node).split()[1])
        for function in functions
        for node in starts(function)
    }
    blocks = {("Complete-Planned", "$judge"), ("Invoke-Aside", "$aside")}
    assert {function for function, _ in started - blocks} == {"Invoke-Planned"}
    everywhere = sum(len(starts(tree)) for tree in trees)
    assert everywhere == sum(len(starts(function)) for function in functions)


def test_the_shell_starts_programs_of_the_plan_in_one_function_only() -> None:
    for script in SHELL:
        for line in script.read_text().splitlines():
            assert not re.match(r"\s*(docker|kubectl|curl|helm|ollama) ", line), line
            assert "$(docker" not in line
            assert "$(kubectl" not in line


def test_the_plan_has_known_flags_and_ways_and_programs() -> None:
    for step, name, when, how, *command in plan():
        assert set(when.split(",")) <= FLAGS | {"-"}, name
        assert how in {"run", "ask", "show", "start"}
        assert command[0] in {"docker", "kubectl", "curl"}
        # Windows PowerShell 5.1 hands a double quote over as none.
        assert '"' not in " ".join(command), step


def test_each_question_of_the_plan_has_a_judge_in_both_scripts() -> None:
    asked = {name for _, name, _, how, *_ in plan() if how == "ask"}
    shell = (CLUSTER / "judge.sh").read_text()
    assert {
        name.replace("_", "-") for name in re.findall(r"^judge_(\w+)", shell, re.MULTILINE)
    } == asked
    powershell = (CLUSTER / "judge.ps1").read_text()
    judges = powershell[powershell.index("$judges") : powershell.index("$asides")]
    assert set(re.findall(r"^    '([a-z-]+)' = \{", judges, re.MULTILINE)) == asked
    asides = set(re.findall(r"^((?:before|after)_\w+)\(\)", shell, re.MULTILINE))
    others = set(re.findall(r"^    '((?:before|after)-[a-z-]+)' = \{", powershell, re.MULTILINE))
    assert {name.replace("_", "-") for name in asides} == others


@pytest.mark.parametrize("scripts", [SHELL, POWERSHELL], ids=["sh", "ps1"])
def test_what_a_script_says_is_in_words(scripts: list[Path]) -> None:
    text = "\n".join(script.read_text() for script in scripts)
    said = set(
        re.findall(r"(?:die|words|confirm|Stop-Run|Get-Words|question=) ?'?([a-z]+-[a-z-]+)", text)
    )
    unknown = said - names_of_words() - {"no-", "failed-", "when-", "urls-"}
    assert unknown == set()


def test_every_text_in_words_is_said_and_fits_into_80_columns() -> None:
    text = "\n".join(script.read_text() for script in (*SHELL, *POWERSHELL))
    made = (
        "no-docker-program",
        "no-kubectl-program",
        "no-curl-program",
        "when-",
        "urls-",
        "failed-",
    )
    unsaid = {name for name in names_of_words() if name not in text and not name.startswith(made)}
    assert unsaid == set()
    lines = (CLUSTER / "words").read_text().splitlines()
    assert [line for line in lines if len(line) > 79 or not line.isascii()] == []


def test_every_overlay_has_its_needs_in_the_table() -> None:
    table = (CLUSTER / "overlays").read_text()
    rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
    named = {row[0] for row in rows}
    folders = {path.parent.name for path in REPOSITORY.glob("k8s/overlays/*/cluster.yaml")}
    assert named == folders | {"*"}
    assert {len(row) for row in rows} == {6}
