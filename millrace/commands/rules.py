"""`millrace rules`."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import typer
from rich.console import Console

from millrace import rules_file
from millrace.client import Master, Refused
from millrace.commands import options
from millrace.problems import Problem, one_line
from millrace.show.rules import diff_text, rule_page, rules_page

app = typer.Typer(
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=True,
    help="Propose rules, try, approve or reject them, and take them back.",
)

_MOST = 200
_T = TypeVar("_T")
_Row = dict[str, Any]

_Which = Annotated[
    str, typer.Argument(metavar="RULE", help="NAME for its newest version, NAME@VERSION, or an id.")
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="As `list` shows it.")]
_Note = Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")]


@app.command("list")
def show_all(
    state: Annotated[
        str | None,
        typer.Option(help="Only proposed, shadow, canary, active, retired or rejected ones."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only versions of this one.")] = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List rules by name, the newest version of each first.

    \b
    [bold]Examples[/bold]
      millrace rules list
      millrace rules list --state proposed
    """
    query = {key: value for key, value in (("state", state), ("name", name)) if value is not None}
    found = _run(url, api_key, lambda master: _listed(master, **query))
    if as_json:
        _print_json(found["data"])
    elif found["data"]:
        Console().print(rules_page(found["data"], more=found["has_more"]))
    else:
        typer.echo("There is no such rule. Propose some: millrace rules propose FILE")


@app.command()
def show(
    which: _Which,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show what a rule says, who decided about it, and the versions of its name.

    \b
    [bold]Examples[/bold]
      millrace rules show brief
      millrace rules show brief@2 --json
    """
    found = _run(url, api_key, lambda master: _found(master, which))
    if as_json:
        _print_json(found)
    else:
        Console().print(rule_page(found))


@app.command()
def propose(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML or JSON; - reads it from standard input.")
    ],
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Propose the rules of a file. They change nothing before they are approved or tried.

    A file has one rule, or a list of them. One that is there already is not made again.

    \b
    [bold]Examples[/bold]
      millrace rules propose brief.yaml
      jq .rules[0] all.json | millrace rules propose -
    """
    wanted = (
        rules_file.parse(sys.stdin.read(), "standard input")
        if str(file) == "-"
        else rules_file.read(file)
    )
    stored = _run(url, api_key, lambda master: _propose(master, wanted, str(file)))
    if as_json:
        _print_json(stored)
        return
    for each in stored:
        typer.echo(f"{_called(each)} is {each['state']} ({each['id']}).")


async def _propose(master: Master, wanted: Sequence[_Row], file: str) -> list[_Row]:
    stored: list[_Row] = []
    for number, rule in enumerate(wanted, start=1):
        try:
            stored.append(await master.send("POST", "/v1/rules", rule))
        except Refused as refused:
            name = one_line(str(rule.get("name", "without a name")), 64)
            done = f" {len(stored)} before it are proposed." if stored else ""
            raise Problem(f"{file}: rule {number} ({name}): {refused.said}.{done}") from refused
    return stored


@app.command()
def approve(
    which: _Which,
    note: _Note = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Make a version active: it changes answers from now on. The one before it retires.

    \b
    [bold]Examples[/bold]
      millrace rules approve brief
      millrace rules approve brief@2 --note "the trial says so"
    """
    _decide(url, api_key, which, "approve", {"note": note}, as_json=as_json)


@app.command()
def reject(
    which: _Which,
    note: _Note = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Refuse a proposal, or end a trial.

    \b
    [bold]Examples[/bold]
      millrace rules reject brief --note "it leaves too much out"
    """
    _decide(url, api_key, which, "reject", {"note": note}, as_json=as_json)


@app.command("try")
def try_out(
    which: _Which,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Of the questions that fit: 20% or 0.2; none: it is only counted."
        ),
    ] = None,
    note: _Note = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Put a version on trial, for a share of the questions that fit or only to be counted.

    \b
    [bold]Examples[/bold]
      millrace rules try brief
      millrace rules try brief --share 20%
    """
    body = {"share": None if share is None else _share(share), "note": note}
    _decide(url, api_key, which, "try", body, as_json=as_json)


@app.command()
def rollback(
    name: _Name,
    to: Annotated[
        int | None,
        typer.Option(min=0, metavar="VERSION", help="That version; 0: none is to be active."),
    ] = None,
    note: _Note = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Take the active version of a rule back; the one that was active before is so again, if any.

    \b
    [bold]Examples[/bold]
      millrace rules rollback brief
      millrace rules rollback brief --to 1
    """
    body = {"version": to, "note": note}
    path = f"/v1/rules/{quote(name, safe='')}/rollback"
    moved = _run(url, api_key, lambda master: master.send("POST", path, _said(body)))["data"]
    if as_json:
        _print_json(moved)
        return
    for each in moved:
        typer.echo(f"{_called(each)} is {each['state']}.")


@app.command()
def diff(
    name: _Name,
    before: Annotated[
        int | None,
        typer.Argument(metavar="FROM", help="A version; none: the one that TO was made from."),
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="TO", help="A version; none: the newest.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.MasterUrl = options.DEFAULT_MASTER_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show what changed between two versions of a rule, line by line.

    \b
    [bold]Examples[/bold]
      millrace rules diff brief
      millrace rules diff brief 1 3
    """
    versions = _run(url, api_key, lambda master: _found(master, name))["history"]
    newer = _version(versions, after) if after is not None else versions[0]
    if before is not None:
        older: _Row | None = _version(versions, before)
    else:
        older = next((each for each in versions if each["id"] == newer["parent"]), None)
    lines = rules_file.difference(older, newer)
    if as_json:
        numbers = {"from": older and older["version"], "to": newer["version"]}
        _print_json({"name": newer["name"], **numbers, "diff": lines})
    elif lines:
        Console(soft_wrap=True).print(diff_text(lines), end="")
    else:
        typer.echo("They say the same.")


def _version(versions: Sequence[_Row], number: int) -> _Row:
    for each in versions:
        if each["version"] == number:
            return each
    there = ", ".join(str(each["version"]) for each in reversed(versions))
    raise Problem(f"there is no version {number}; there are: {there}.")


def _decide(
    url: str,
    api_key: str | None,
    which: str,
    verb: str,
    body: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    async def decide(master: Master) -> _Row:
        found = await _found(master, which)
        return await master.send("POST", f"/v1/rules/{found['id']}/{verb}", _said(body))

    moved = _run(url, api_key, decide)
    if as_json:
        _print_json(moved)
        return
    share = f" for {moved['share'] * 100:.3g} % of what fits" if moved["share"] else ""
    typer.echo(f"{_called(moved)} is {moved['state']}{share}.")


def _said(body: Mapping[str, Any]) -> _Row:
    return {name: value for name, value in body.items() if value is not None}


def _share(text: str) -> float:
    plain = text.strip()
    try:
        share = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise typer.BadParameter(f"{text!r} is no share: write 20% or 0.2, at most 100%")
    return share


async def _found(master: Master, which: str) -> _Row:
    """A version with its history, by id, name or name and version. Raises `Problem`."""
    with contextlib.suppress(ValueError):
        return await master.get(f"/v1/rules/{UUID(which)}")
    name, _, number = which.partition("@")
    found = (await _listed(master, name=name))["data"]
    if not found:
        raise Problem(f"there is no rule {one_line(name)!r}. See `millrace rules list`.")
    if number and not number.isdecimal():
        raise Problem(f"{one_line(number)!r} is no version: write {one_line(name)}@2.")
    chosen = _version(found, int(number)) if number else found[0]
    return await master.get(f"/v1/rules/{chosen['id']}")


async def _listed(master: Master, **query: str) -> _Row:
    return await master.send("GET", "/v1/rules", query={**query, "limit": _MOST})


def _run(url: str, api_key: str | None, ask: Callable[[Master], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with options.master_client(url, api_key) as master:
            return await ask(master)

    return asyncio.run(run())


def _called(rule: Mapping[str, Any]) -> str:
    return f"{one_line(rule['name'])}@{rule['version']}"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
