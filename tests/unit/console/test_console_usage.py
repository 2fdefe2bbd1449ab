"""The usage page: days without work, many models, prices."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from db.tenants import StoredKey
from db.usage import Fate, Spent
from master.console.usage import shown, usage
from queue_schemas.registry import Registry

TODAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PRICES = Registry.model_validate(
    {
        "models": [
            {"name": "m0", "provider": "scripted", "price": {"prompt": 1, "completion": 2}},
        ],
        "currency": "EUR",
    }
)


def spent(day: str, model: str, tokens: int, fate: Fate = Fate.ANSWERED) -> Spent:
    return Spent(day, model, fate, 1, tokens, 0, Decimal(1))


def test_every_day_has_its_place_also_those_without_work() -> None:
    used = usage([spent("2026-02-27", "m0", 5), spent("2026-03-01", "m0", 7)], PRICES, TODAY, 7)
    ((name, series),) = used.series
    assert name == "m0"
    assert list(series.values) == [0, 0, 0, 0, 5, 0, 7]
    assert [line.key for line in used.days] == ["2026-02-27", "2026-03-01"]


def test_the_models_that_used_least_are_drawn_as_one() -> None:
    rows = [spent("2026-03-01", f"m{number}", 10 + number) for number in range(9)]
    used = usage(rows, PRICES, TODAY, 7)
    names = [name for name, _ in used.series]
    assert names == ["m8", "m7", "m6", "m5", "m4", "others"]
    assert sum(series.values[-1] for _, series in used.series) == sum(range(10, 19))
    assert [series.css for _, series in used.series] == [f"series-{n}" for n in range(1, 7)]
    assert len(used.models) == 9


def test_six_models_are_drawn_by_name() -> None:
    rows = [spent("2026-03-01", f"m{number}", 10) for number in range(6)]
    assert "others" not in [name for name, _ in usage(rows, PRICES, TODAY, 7).series]


def test_what_did_not_count_is_apart_and_models_without_a_price_cost_nothing() -> None:
    rows = [
        spent("2026-03-01", "m0", 1_000_000),
        spent("2026-03-01", "m0", 2_000_000, Fate.LATE),
        spent("2026-03-01", "gone", 1_000_000),
    ]
    used = usage(rows, PRICES, TODAY, 7)
    assert (used.total.counted.cost, used.total.not_counted.cost) == (1, 2)
    assert used.currency == "EUR"


def test_nothing_was_used() -> None:
    used = usage([], PRICES, TODAY, 7)
    assert (used.days, used.series) == ([], [])


def key(number: int, revoked_at: datetime | None = None) -> StoredKey:
    return StoredKey(
        id=UUID(int=number),
        tenant=UUID(int=0),
        tenant_name="acme",
        name="a key",
        prefix=f"mr-{number}",
        digest=b"",
        created_at=NOW,
        revoked_at=revoked_at,
        made_with=None,
    )


def test_every_valid_key_is_shown_and_of_many_revoked_ones_the_newest() -> None:
    valid = [key(number) for number in range(100)]
    revoked = [key(100 + ago, NOW - timedelta(minutes=ago)) for ago in range(500)]
    found = [each.prefix for each in shown([*valid, *revoked])]
    assert found == [f"mr-{number}" for number in range(150)]
