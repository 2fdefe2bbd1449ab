"""Ratings in Open WebUI become judgements, as long as they are there and of our own answers."""

import dataclasses
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from db import erasing, judgements, new_requests, openwebui
from db.asked import Asked, Message
from db.judgements import StoredJudgement
from db.openwebui_tables import Outcome
from db.tenancy import as_tenant
from master.learning import pull
from master.learning.pull import NoTenant
from master.learning.taking import Round, Taking
from master.metrics import registry
from master.openwebui import OpenWebui, OpenWebuiError
from master.settings import MasterSettings
from millrace.chaos.engine import serve
from millrace.chaos.stack import until
from tests.doubles.open_webui import KEY, PAGE, OpenWebuiDouble
from tests.integration.db.corpus_acts import tenant_named, thumb
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import a_script
from tests.integration.master.test_asked_again import shown_as


@dataclasses.dataclass
class Site:
    """A tenant and its Open WebUI."""

    engine: AsyncEngine
    tenant: UUID
    there: OpenWebuiDouble
    client: OpenWebui

    async def answered(self, message: str, user: str = "ann", chat: str | None = "c1") -> UUID:
        """A request that answers a message."""
        asked = Asked(message=Message(message, user, chat, f"q-{message}"))
        row = new_requests.NewRequest(
            uuid4(),
            self.tenant,
            user,
            "mill",
            "{}",
            "{}",
            seed=1,
            reply_to=None,
            deadline_seconds=600,
            asked=asked,
        )
        async with self.engine.begin() as connection:
            await new_requests.add(connection, row, [])
        return row.id

    async def pull(self, **more: Any) -> Round:
        found = await pull.pull(self.engine, self.client, self.tenant, now=self.there.clock, **more)
        assert found is not None
        return found

    async def judged(self, request: UUID) -> list[StoredJudgement]:
        async with as_tenant(self.engine, self.tenant) as connection:
            return await judgements.of_request(connection, self.tenant, request, 100)

    async def counts(self) -> dict[Outcome, int]:
        async with as_tenant(self.engine, self.tenant) as connection:
            found = await openwebui.counted(connection, self.tenant, self.client.url)
        return dict(found)

    async def watermark(self) -> int:
        async with as_tenant(self.engine, self.tenant) as connection:
            return (await openwebui.source(connection, self.tenant, self.client.url)).watermark


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpenWebuiDouble, str]]:
    there = OpenWebuiDouble()
    with serve(there) as url:
        yield there, url


@pytest.fixture
async def site(
    engine: AsyncEngine, tenant: UUID, served: tuple[OpenWebuiDouble, str]
) -> AsyncGenerator[Site, None]:
    there, url = served
    there.reset()
    async with OpenWebui(url, KEY) as client:
        yield Site(engine, tenant, there, client)


async def test_a_rating_arrives_joined_to_its_request(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", -1, comment="Wrong.", details={"rating": 2})
    found = await site.pull()
    assert found.outcomes == {Outcome.STORED: 1}
    [made] = await site.judged(request)
    assert (made.kind, made.rater, made.source) == ("human", "user:ann", "openwebui")
    assert (made.score, made.comment) == (pytest.approx(1 / 9), "Wrong.")
    assert made.rating == {"thumb": -1, "stars": 2, "tags": ["General"]}


async def test_what_is_rolled_back_is_not_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)

    def counted() -> list[float | None]:
        return [
            registry.get_sample_value("millrace_openwebui_ratings_total", {"outcome": "stored"}),
            registry.get_sample_value(
                "millrace_judgements_total", {"source": "openwebui", "verdict": "good"}
            ),
        ]

    await site.pull()
    before = [value or 0 for value in counted()]
    await site.answered("m2")
    site.there.rate("m2", "ann", "c1", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Taking, "count", out_of_memory)  # after it was taken
        with pytest.raises(MemoryError):
            await site.pull()
    assert counted() == before
    await site.pull()
    assert counted() == [value + 1 for value in before]


async def out_of_memory(_: Taking) -> int:
    raise MemoryError


async def test_a_second_round_finds_nothing_new(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    before = await site.judged(request)
    found = await site.pull()
    assert (found.seen, found.outcomes, found.withdrawn) == (1, {}, 0)
    assert await site.judged(request) == before
    assert not [path for path in site.there.asked if "ids" in path]


async def test_what_changes_in_the_same_second_is_seen(site: Site) -> None:
    request = await site.answered("m1")
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.change(rating, comment="Good, but long.")
    await site.pull()
    site.there.change(rating, rating=-1, reason=None)
    assert (await site.pull()).outcomes == {Outcome.STORED: 1}
    [made] = await site.judged(request)
    assert (made.score, made.comment) == (0.0, "Good, but long.")


async def test_what_changes_long_after_is_seen(site: Site) -> None:
    request = await site.answered("m1")
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.clock += 86_400
    site.there.rate("m2", "ann", "c1", 1)
    await site.pull()
    site.there.clock += 86_400
    site.there.change(rating, rating=-1)
    await site.pull()
    assert [made.score for made in await site.judged(request)] == [0.0]
    assert await site.watermark() == site.there.clock


async def test_a_deleted_rating_is_withdrawn(site: Site) -> None:
    first, second = await site.answered("m1"), await site.answered("m2")
    gone = site.there.rate("m1", "ann", "c1", 1)
    site.there.rate("m2", "ann", "c1", 1)
    await site.pull()
    site.there.clock += 86_400
    site.there.delete(gone)
    site.there.rate("m3", "ann", "c1", 1)  # the number is the same as before
    found = await site.pull()
    assert (found.withdrawn, found.outcomes) == (1, {Outcome.UNKNOWN: 1})
    assert await site.judged(first) == []
    assert len(await site.judged(second)) == 1
    assert await site.counts() == {Outcome.STORED: 1, Outcome.UNKNOWN: 1}


@pytest.mark.parametrize(
    ("message", "user", "chat", "outcome"),
    [
        ("m1", "bob", "c1", Outcome.FOREIGN),
        ("m1", "ann", "c2", Outcome.FOREIGN),
        ("m1", "ann", None, Outcome.FOREIGN),
        ("m2", "ann", "c1", Outcome.UNKNOWN),
        ("", "ann", "c1", Outcome.UNKNOWN),
    ],
)
async def test_a_foreign_rating_is_counted_and_not_stored(
    site: Site, message: str, user: str, chat: str | None, outcome: Outcome
) -> None:
    request = await site.answered("m1")
    site.there.rate(message, user, chat, -1)
    assert (await site.pull()).outcomes == {outcome: 1}
    assert (await site.pull()).outcomes == {}
    assert await site.judged(request) == []
    assert await site.counts() == {outcome: 1}


async def test_the_message_of_another_tenant_is_not_known(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", -1)
    site.tenant = await tenant_named(site.engine, "other")
    assert (await site.pull()).outcomes == {Outcome.UNKNOWN: 1}
    assert await site.judged(request) == []


async def test_a_rating_that_is_moved_to_a_foreign_message_is_withdrawn(site: Site) -> None:
    mine, other = await site.answered("m1"), await site.answered("m2", "bob", "c2")
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.ratings[rating]["meta"] |= {"message_id": "m2", "chat_id": "c2"}
    found = await site.pull()
    assert (found.outcomes, found.withdrawn) == ({Outcome.FOREIGN: 1}, 1)
    assert await site.judged(mine) == await site.judged(other) == []


async def test_all_pages_are_read_and_then_only_the_first(site: Site) -> None:
    request = await site.answered("m1")
    for number in range(2 * PAGE + 1):
        site.there.clock += 100
        site.there.rate("m1" if number == 0 else "other", "ann", "c1", 1)
    assert (await site.pull()).seen == 2 * PAGE + 1
    assert len(await site.judged(request)) == 1
    site.there.asked.clear()
    assert (await site.pull()).outcomes == {}
    assert len(site.there.asked) == 1


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "added"])
async def test_what_moves_to_another_page_meanwhile_is_not_lost(site: Site, deleted: bool) -> None:
    """A deleted one moves others up, to the page that was read; a new one moves them down."""
    made = [await site.answered(f"m{number}") for number in range(PAGE + 3)]
    ids = []
    for number in range(PAGE + 2):
        site.there.clock += 1000
        ids.append(site.there.rate(f"m{number}", "ann", "c1", 1))

    def meanwhile(number: int) -> None:
        if number == 2 and deleted:
            site.there.delete(ids[-1])
        elif number == 2:
            site.there.rate(f"m{PAGE + 2}", "ann", "c1", 1)

    site.there.before_page = meanwhile
    await site.pull()
    stored = [len(await site.judged(request)) for request in made]
    assert stored == [1] * (PAGE + 1) + ([0, 0] if deleted else [1, 1])


async def test_a_time_in_the_future_hides_nothing(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("odd", "ann", "c1", 1)
    next(iter(site.there.ratings.values()))["updated_at"] += 10**9
    await site.pull()
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.clock += 86_400
    site.there.change(rating, rating=-1)
    await site.pull()
    assert [made.score for made in await site.judged(request)] == [0.0]


async def test_the_answer_after_its_tools_is_judged(site: Site) -> None:
    first, last = await site.answered("m1"), await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    assert await site.judged(first) == []
    assert len(await site.judged(last)) == 1


async def test_what_was_said_through_our_own_api_stays_when_the_rating_goes(site: Site) -> None:
    request = await site.answered("m1")
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    [made] = await site.judged(request)
    said = thumb("user:ann", 0.0)
    async with as_tenant(site.engine, site.tenant) as connection:
        await judgements.put(connection, site.tenant, request, [said])
    site.there.delete(rating)
    assert (await site.pull()).withdrawn == 0
    assert [each.id for each in await site.judged(request)] == [made.id]


async def test_what_was_taken_back_here_is_not_taken_over_again(site: Site) -> None:
    request = await site.answered("m1")
    rating = site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    [made] = await site.judged(request)
    async with as_tenant(site.engine, site.tenant) as connection:
        await judgements.delete(connection, site.tenant, made.id)
    await site.pull()
    assert await site.judged(request) == []
    site.there.change(rating, rating=-1)
    await site.pull()
    assert [made.score for made in await site.judged(request)] == [0.0]


async def test_of_two_ratings_of_one_message_the_later_counts(site: Site) -> None:
    request = await site.answered("m1")
    first = site.there.rate("m1", "ann", "c1", 1)
    site.there.clock += 10
    site.there.rate("m1", "ann", "c1", -1)
    await site.pull()
    assert [made.score for made in await site.judged(request)] == [0.0]
    site.there.delete(first)
    assert (await site.pull()).withdrawn == 0
    assert len(await site.judged(request)) == 1


async def test_ratings_of_a_deleted_user_stay(site: Site) -> None:
    first, second = await site.answered("m1"), await site.answered("m2", "bob")
    site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.rate("m2", "bob", "c1", 1)
    site.there.gone = {"ann", "bob"}
    for _ in range(2):
        await site.pull()
        assert [len(await site.judged(request)) for request in (first, second)] == [1, 1]
    assert len([path for path in site.there.asked if "/feedback/" in path]) == 1


async def test_other_kinds_of_feedback_are_left_alone(site: Site) -> None:
    request = await site.answered("m1")
    rating = site.there.rate("m1", "ann", "c1", 1)
    site.there.ratings[rating]["type"] = "survey"
    assert (await site.pull()).outcomes == {Outcome.OTHER: 1}
    assert await site.judged(request) == []


@pytest.mark.parametrize(
    ("change", "message", "outage"),
    [
        ({"status": 503}, "answered 503", True),
        ({"status": 401}, "key is not accepted", False),
        ({"status": 404}, "answered 404", False),
        ({"body": b"<!doctype html>"}, "is this Open WebUI", False),
        ({"body": b"[]"}, "is this Open WebUI", False),
        ({"body": b'{"items": [{}], "total": 1}'}, "no id or no time", False),
    ],
)
async def test_what_cannot_be_read_changes_nothing(
    site: Site, change: dict[str, Any], message: str, outage: bool
) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    site.there.__dict__.update(change)
    with pytest.raises(OpenWebuiError, match=message) as raised:
        await site.pull()
    assert raised.value.outage is outage
    assert len(await site.judged(request)) == 1


async def test_an_open_webui_that_is_away_is_an_outage(site: Site) -> None:
    async with OpenWebui("http://127.0.0.1:9", KEY) as client:
        with pytest.raises(OpenWebuiError, match="does not answer") as raised:
            await pull.pull(site.engine, client, site.tenant, now=0)
    assert raised.value.outage


async def test_only_one_reads_at_a_time_and_a_dead_one_does_not_hinder_others(site: Site) -> None:
    async def hold(round_: UUID, seconds: float) -> bool:
        async with as_tenant(site.engine, site.tenant) as connection:
            return await openwebui.hold(connection, site.tenant, site.client.url, round_, seconds)

    first, second = uuid4(), uuid4()
    assert await hold(first, 60)
    assert await pull.pull(site.engine, site.client, site.tenant, now=0) is None
    assert site.there.asked == []
    assert await hold(first, 0)
    await site.pull()
    assert await hold(second, 60)
    assert not await hold(first, 60)


async def test_no_transaction_is_open_while_open_webui_is_asked(site: Site) -> None:
    in_use: list[int] = []
    pool = site.engine.pool
    assert isinstance(pool, QueuePool)
    site.there.before_call = lambda: in_use.append(pool.checkedout())
    for _ in range(PAGE + 1):
        site.there.rate("m1", "ann", "c1", 1)
    await site.pull()
    assert in_use == [0, 0, 0]  # two pages, and the ids


async def test_a_long_list_is_read_in_several_rounds(site: Site) -> None:
    made = [await site.answered(f"m{number}") for number in range(3)]
    site.there.rate("m0", "ann", "c1", 1)
    for _ in range(2 * PAGE):
        site.there.clock += 1000
        site.there.rate("m1", "ann", "c1", 1)
    began = site.there.clock
    assert (await site.pull(pages=1)).more
    site.there.clock += 1000
    site.there.rate("m2", "ann", "c1", 1)  # moves the others down
    assert (await site.pull(pages=1)).more
    assert await site.watermark() == 0
    assert not (await site.pull(pages=2)).more
    assert await site.watermark() == began
    assert [len(await site.judged(request)) for request in made] == [1, 1, 1]
    site.there.asked.clear()
    await site.pull()
    assert len(site.there.asked) == 1


async def test_what_was_read_before_an_outage_stays_and_is_not_read_again(site: Site) -> None:
    first, last = await site.answered("m1"), await site.answered("m2")
    site.there.rate("m2", "ann", "c1", 1)
    for _ in range(PAGE):
        site.there.clock += 1000
        site.there.rate("m1", "ann", "c1", 1)

    def away(number: int) -> None:
        site.there.status = 503

    site.there.before_page = away
    with pytest.raises(OpenWebuiError):
        await site.pull()
    assert [len(await site.judged(request)) for request in (first, last)] == [1, 0]
    site.there.before_page = lambda number: None
    site.there.status = None
    site.there.asked.clear()
    await site.pull()
    assert "page=2" in site.there.asked[0]
    assert len(await site.judged(last)) == 1


async def test_an_earlier_rating_that_is_read_later_does_not_count(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)
    for _ in range(PAGE):
        site.there.clock += 1000
        site.there.rate("m2", "ann", "c1", 1)
    site.there.clock += 1000
    site.there.rate("m1", "ann", "c1", -1)
    assert (await site.pull()).outcomes[Outcome.STORED] == 2
    assert [made.score for made in await site.judged(request)] == [0.0]


async def test_more_than_one_round_can_compare_is_left_to_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await site.answered(f"m{number}", "gone") for number in range(3)]
    site.there.gone = {"gone"}  # in no page, only in the ids
    for number in range(3):
        site.there.rate(f"m{number}", "gone", "c1", 1)
    for _ in range(PAGE + 1):
        site.there.rate("other", "ann", "c1", 1)
    monkeypatch.setattr(pull, "_MOST_COMPARED", 2)
    assert (await site.pull()).more
    assert not (await site.pull()).more
    assert [len(await site.judged(request)) for request in made] == [1, 1, 1]


async def test_what_is_rated_after_its_conversation_was_deleted_is_not_stored(site: Site) -> None:
    request = await site.answered("m1")
    async with site.engine.begin() as connection:
        await erasing.erase(connection, {request: {"steps": []}})
    site.there.rate("m1", "ann", "c1", -1, comment="It said xyzzy.")
    assert (await site.pull()).outcomes == {Outcome.UNKNOWN: 1}
    assert await site.judged(request) == []


async def test_without_a_name_the_only_tenant_owns_the_ratings(
    engine: AsyncEngine, tenant: UUID
) -> None:
    assert await pull.owner(engine, None) == await pull.owner(engine, "acme") == tenant
    with pytest.raises(NoTenant, match="no tenant 'nobody'"):
        await pull.owner(engine, "nobody")
    other = await tenant_named(engine, "other")
    with pytest.raises(NoTenant, match="2 tenants"):
        await pull.owner(engine, None)
    assert await pull.owner(engine, "other") == other


async def test_a_round_is_taken_up_where_an_outage_ended_it(site: Site) -> None:
    request = await site.answered("m1")
    site.there.rate("m1", "ann", "c1", 1)
    puller = pull.Puller(site.engine, site.client, None, seconds=30)
    site.there.status = 503
    await puller._round()
    async with as_tenant(site.engine, site.tenant) as connection:
        source = await openwebui.source(connection, site.tenant, site.client.url)
    assert source.error is not None
    assert "503" in source.error
    assert source.pulled_at is None
    site.there.status = None
    await puller._round()
    assert len(await site.judged(request)) == 1
    async with as_tenant(site.engine, site.tenant) as connection:
        source = await openwebui.source(connection, site.tenant, site.client.url)
    assert source.error is None
    assert source.pulled_at is not None


async def test_a_master_pulls_by_itself(
    make_mill: MakeMill, served: tuple[OpenWebuiDouble, str]
) -> None:
    there, url = served
    there.reset()
    reads = {"openwebui_url": url + "/", "openwebui_api_key": KEY, "openwebui_seconds": 0.1}
    mill = await make_mill(a_script(), **reads)
    headers = shown_as("m1")
    answer = await mill.http.post("/v1/chat/completions", json=mill.body(), headers=headers)
    request = answer.headers["x-millrace-request-id"]
    there.rate("m1", "ann", "c1", -1, comment="No.")

    async def judged() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await mill.record(request))["judgements"]
        return found

    [made] = await until(judged, 30)
    assert (made["rater"], made["source"], made["comment"]) == ("user:ann", "openwebui", "No.")

    async def counted() -> bool:
        page = (await mill.http.get("/metrics")).text
        return 'millrace_openwebui_ratings_total{outcome="stored"}' in page

    await until(counted, 30)


@pytest.mark.parametrize("alone", ["openwebui_url", "openwebui_api_key"])
def test_an_address_without_a_key_is_refused_at_the_start(alone: str) -> None:
    given: dict[str, Any] = {"DATABASE_URL": "postgresql://x", alone: "http://127.0.0.1:1"}
    with pytest.raises(ValidationError, match="must be set together"):
        MasterSettings(**given)
    empty = {"openwebui_url": "", "openwebui_api_key": "", "openwebui_tenant": ""}
    settings = MasterSettings(**given | empty)
    assert (settings.openwebui_url, settings.openwebui_tenant) == (None, None)


async def test_messages_go_with_their_request(engine: AsyncEngine, site: Site) -> None:
    request = await site.answered("m1")
    async with engine.begin() as connection:
        await connection.execute(
            text("DELETE FROM millrace.requests WHERE id = :id"), {"id": request}
        )
    async with as_tenant(engine, site.tenant) as connection:
        assert await openwebui.requests_of(connection, site.tenant, "m1") == []
