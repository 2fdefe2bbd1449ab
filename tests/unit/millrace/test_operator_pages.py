"""What the commands for operators show, with names that nobody expected."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import typer
from rich.console import Console, RenderableType

from bus.protocol import Depth
from db.dead import DeadSubtask
from db.reconcile import Counts
from db.usage import By, Fate, Spent
from master.bill_lines import bill_lines, total
from master.reconcile import Finding, Kind, Look, ModelState
from millrace import duration
from millrace.show.dead import dead_page, dead_table, messages_page
from millrace.show.reconcile import reconciliation
from millrace.show.usage import usage_table
from queue_schemas.registry import Registry
from queue_schemas.states import RequestState

LONG = "an-extremely-long-name-that-somebody-gave-to-their-favourite-fine-tune:70b-instruct-q4_K_M"
NASTY = "[bold]日本語[/] \x1b[2J\r\n" + LONG
PRICES = Registry.model_validate(
    {"models": [{"name": "m", "provider": "scripted", "price": {"prompt": 0.1, "completion": 0.7}}]}
)


def a_dead(**fields: Any) -> DeadSubtask:
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "request": uuid4(),
        "step": "part-1",
        "kind": "answer",
        "model": LONG,
        "worker": LONG,
        "attempt": 5,
        "losses": 2,
        "error": {"code": LONG, "message": NASTY},
        "died_at": datetime.now(UTC) - timedelta(hours=3),
        "seen_at": None,
        "tenant": NASTY,
        "end_user": NASTY,
        "asked_model": LONG,
        "question": {"messages": [{"role": "user", "content": NASTY}]},
        "request_state": RequestState.FAILED,
        "redriven_as": None,
    }
    return DeadSubtask(**(defaults | fields))


def spent(key: str, fate: Fate, tokens: int, model: str = "m") -> Spent:
    return Spent(key, model, fate, 1, tokens, tokens, Decimal("0.1"))


LEDGER = [
    {"attempt": 1, "model": LONG, "worker": LONG, "outcome": LONG, "error": {"message": NASTY}}
]
LOOK = Look(
    (ModelState(LONG, LONG, Counts(99999, 99999, 99999, 99999, 99999), Depth(99999, 99999), 9999),),
    tuple(Finding(kind, 12345, NASTY, LONG, (UUID(int=1),) * 9) for kind in Kind),
)
PAGES: dict[str, RenderableType] = {
    "dead list": dead_table([a_dead(), a_dead(seen_at=datetime.now(UTC))], {"dead": 1, "x": None}),
    "dead show": dead_page(a_dead(redriven_as=uuid4()), LEDGER),
    "dead without report": dead_page(a_dead(error=None, question={}), []),
    "messages": messages_page("dead", 1, [{"queue": LONG, "reason": LONG, "begins": LONG * 3}]),
    "reconcile": reconciliation(LOOK, None),
    "mended": reconciliation(LOOK, Look(LOOK.models, ())),
    "usage": usage_table(
        bill_lines([spent(NASTY, f, 10**12) for f in Fate], PRICES), By.USER, "7d", "USD"
    ),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [80, 120])
def test_every_page_fits_and_sends_no_control_characters(page: str, width: int) -> None:
    console = Console(width=width, record=True, file=_Nowhere())
    console.print(PAGES[page])
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "\r" not in text


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def test_a_bill_is_exact_and_a_model_without_a_price_costs_nothing() -> None:
    rows = [spent("a", Fate.ANSWERED, 1_000_000) for _ in range(3)]
    rows += [spent("a", Fate.LATE, 1_000_000), spent("b", Fate.FAILED, 5, "gone")]
    lines = bill_lines(rows, PRICES)
    assert [line.key for line in lines] == ["a", "b"]
    assert lines[0].counted.cost == Decimal("2.4")
    assert lines[0].not_counted.cost == Decimal("0.8")
    assert lines[1].not_counted.cost == 0
    assert lines[1].counted.executions == 0
    whole = total(lines)
    assert whole.counted.engine_seconds == Decimal("0.3")
    assert whole.not_counted.executions == 2
    assert set(whole.fates) == {Fate.ANSWERED, Fate.LATE, Fate.FAILED}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("7d", 604800), (" 2M ", 120)]
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert duration.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days", "1e9d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 90s"):
        duration.seconds(text)
