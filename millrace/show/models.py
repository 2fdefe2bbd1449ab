"""The models of a registry file or of a running master."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.show.numbers import count, plural
from queue_schemas.registry import RESERVED_PREFIX, Model, Registry


def registry_table(registry: Registry, name: str, width: int) -> RenderableType:
    """A registry file as a table."""
    wide = width >= 110
    table = _table("Model", "Can")
    table.columns[1].no_wrap = False
    table.add_column("Provider", no_wrap=True)
    for title in ("Context", "Slots", "Workers", "GPU GiB", *(("Price",) if wide else ())):
        table.add_column(title, no_wrap=True, justify="right")
    for model in registry.models:
        cells = [Text(model.name), Text(", ".join(sorted(model.capabilities)), "dim")]
        cells += [Text(cell) for cell in _cells(model)]
        table.add_row(*cells, *((_price(model, registry.currency),) if wide else ()))
    roles = [f"{role}: {model}" for role, model in registry.roles.model_dump().items() if model]
    lines = [Text(f"{name}: valid, {plural(len(registry.models), 'model')}", "green")]
    if roles:
        lines.append(Text("roles · " + " · ".join(roles), "dim"))
    return Group(table, *lines)


def _cells(model: Model) -> list[str]:
    low, high = model.min_workers, model.max_workers
    return [
        str(model.provider),
        count(model.context_length),
        str(model.slots),
        str(low) if low == high else f"{low}-{high}",
        f"{model.gpu_memory_gib:g}",
    ]


def _price(model: Model, currency: str) -> Text:
    return Text(f"{currency} {model.price.prompt:g} / {model.price.completion:g}")


def served_table(models: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What a running master offers: strategies first, then real models."""
    ids = [str(model["id"]) for model in models]
    strategies = [name for name in ids if name.startswith(RESERVED_PREFIX)]
    real = [name for name in ids if not name.startswith(RESERVED_PREFIX)]
    table = _table("Name", "What it is")
    for name in strategies:
        kind, _, collection = name.removeprefix(RESERVED_PREFIX).partition(":")
        what = f"the strategy {kind}: --strategy {kind}"
        if collection:
            what = f"the documents of {collection}: --collection {collection}"
        table.add_row(Text(name), Text(what, "dim"))
    for name in real:
        table.add_row(Text(name), Text(f"a model: --model {name}", "dim"))
    return table


def _table(first: str, second: str) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column(second, no_wrap=True, overflow="ellipsis", ratio=1)
    return table
