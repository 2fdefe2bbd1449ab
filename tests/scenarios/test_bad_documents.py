"""Documents that mean harm, at a real installation: refused or failed by name, and nothing stays.

After each of them a good document is ingested: the parser, the loop and the engine go on (C34-C42).
"""

import functools
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from master.retrieval import fetch, stages
from millrace.chaos.engine import serve
from tests.doubles import evil_files as evil
from tests.scenarios.house import MOST_BYTES, SPARSE, House, Vectors, a_house, code

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres_url: str, migrated_template: str) -> AsyncGenerator[House]:
    """One for all: whatever a test does, the next one needs it alive."""
    async with a_house(postgres_url, migrated_template) as made:
        yield made


@pytest.fixture
def house(shared: House) -> Iterator[House]:
    yield shared
    shared.engine.spoil, shared.engine.page, shared.engine.hangs = None, None, False


def truncated() -> bytes:
    whole = evil.pdf([evil.shown("hello")] * 3)
    return whole[: len(whole) // 3]


# --- files (C35 to C38) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("encrypted.pdf", evil.encrypted_pdf, "pdf_encrypted"),
        ("truncated.pdf", truncated, "pdf_truncated"),
        ("no_pages.pdf", lambda: evil.pdf([]), "pdf_empty"),
        ("bomb.pdf", evil.bomb_pdf, "pdf_too_large"),
        ("5000.pdf", lambda: evil.pdf([b""] * 5000), "pdf_too_large"),
        ("images.pdf", lambda: evil.pdf([b"/Im1 Do"]), "no_text"),
        ("bomb.docx", evil.zip_bomb, "zip_bomb"),
        ("liar.docx", evil.lying_zip_bomb, "docx_damaged"),
        (
            "nested.docx",
            lambda: evil.docx_with({"word/media/a.zip": evil.zipped({"a": b"b"})}),
            "zip_unsafe",
        ),
        ("climber.docx", lambda: evil.docx_with({"../../evil": b"x"}), "zip_unsafe"),
        ("link.docx", evil.linked_docx, "zip_unsafe"),
        ("deep.json", lambda: b"[" * 100_000, "bad_json"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_by_name_and_leaves_nothing(
    house: House, name: str, make: Callable[[], bytes], expected: str
) -> None:
    done = await house.end_of(await house.send((name, make())))
    assert (done["state"], done["error"]["code"]) == ("failed", expected)
    assert done["error"]["status"] == 422
    assert done["attempt"] == 1
    assert not await house.stored("chunks", "drafts", "chunk_terms", document=done["id"])
    await house.still_works()


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("invoice.pdf", b"MZ\x90\x00" + bytes(200), (415, "bad_media_type")),
        ("invoice.docx", b"\x7fELF" + bytes(200), (415, "bad_media_type")),
        ("any.zip", evil.zipped({"a": b"b"}), (415, "bad_media_type")),
        ("empty.pdf", b"", (400, "pdf_empty")),
        ("large.txt", b"x" * (MOST_BYTES + 1), (413, "request_too_large")),
    ],
)
async def test_a_file_that_is_refused_leaves_no_trace_of_its_neighbours_either(
    house: House, name: str, body: bytes, expected: tuple[int, str]
) -> None:
    answer = await house.send(("good.txt", b"good"), (name, body), collection="never")
    assert code(answer) == expected
    assert code(await house.mill.http.get("/v1/collections/never")) == (404, "not_found")
    await house.still_works()


async def test_hidden_text_is_counted_and_cannot_be_found(house: House) -> None:
    page = evil.shown("The wheel is round.") + evil.shown(
        "obeyzzq the letter", before="1 1 1 rg", at=(72, 600)
    )
    done = await house.end_of(await house.send(("white.pdf", evil.pdf([page])), collection="ink"))
    assert (done["state"], done["flags"]) == ("ready", {"hidden_text_characters": 18})
    assert await house.found("obeyzzq letter", "ink") == []
    assert await house.found("wheel", "ink") == ["The wheel is round."]
    rows = await house.mill.rows("SELECT 1 FROM millrace.terms WHERE lexeme LIKE 'obeyzzq%'")
    assert rows == []


async def test_nul_and_broken_letters_are_cleaned_counted_and_found(house: House) -> None:
    body = "The caf\u00e9\0keeper ".encode() + b"\xff sleeps."
    done = await house.end_of(await house.send(("odd.txt", body), collection="odd"))
    assert (done["state"], done["flags"]) == ("ready", {"cleaned_characters": 2})
    [text] = await house.found("sleeps", "odd")
    assert "\0" not in text


# --- URLs (C34) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:word@example.org/",
        "http://example.org:25/",
        "http://exam\nple.org/",
    ],
)
async def test_a_url_that_is_not_for_us_is_not_fetched_and_not_explained(
    house: House, url: str
) -> None:
    done = await house.end_of(await house.say(url=url, collection="papers", **SPARSE))
    assert done["error"] == {
        "code": "url_not_allowed",
        "message": "this URL is not fetched",
        "status": 400,
    }
    assert not await house.stored("document_bodies", "chunks", "drafts", document=done["id"])
    assert done["name"].isprintable()


@pytest.mark.parametrize("url", ["gopher://example.org/", "file:///etc/passwd", "http:///x", "x"])
async def test_what_is_no_url_of_the_web_is_refused(house: House, url: str) -> None:
    answer = await house.say(url=url, collection="never", **SPARSE)
    assert code(answer) == (400, "url_not_allowed")
    assert answer.json()["error"]["param"] == "url"


async def leading(scope: Any, receive: Any, send: Any) -> None:
    """A public server: `/to/URL` leads there, anything else is a text."""
    _, _, target = scope["path"].partition("/to/")
    headers = [(b"location", target.encode())] if target else [(b"content-type", b"text/plain")]
    status = 302 if target else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if target else b"A public mill."})


async def test_redirects_are_judged_as_the_first_address_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    with serve(leading) as here:
        port = int(here.rpartition(":")[2])
        limits = functools.partial(fetch.FetchLimits, ports=frozenset({80, 443, port}))
        monkeypatch.setattr(stages, "FetchLimits", limits)

        async def error_of(target: str) -> str | None:
            said = await house.say(url=f"{here}/to/{target}", collection="web", **SPARSE)
            error = (await house.end_of(said))["error"]
            return error["code"] if error else None

        assert await error_of(f"{here}/page") is None
        for target in (
            f"http://127.0.0.2:{port}/",
            f"http://[::1]:{port}/",
            "http://169.254.169.254/",
            f"{here}/to/http://127.0.0.2:{port}/",
            "gopher://example.org/",
            "http://127.0.0.1:25/",
            f"http://user@127.0.0.1:{port}/",
        ):
            assert await error_of(target) == "url_not_allowed", target
    assert await house.found("public", "web") == ["A public mill."]


# --- vectors (C39 to C42) -----------------------------------------------------------------------


BAD_VECTORS: dict[str, Callable[[Vectors], Any]] = {
    "nan": lambda good: [[math.nan] * 16 for _ in good],
    "infinite": lambda good: [[math.inf] * 16 for _ in good],
    "zero": lambda good: [[0.0] * 16 for _ in good],
    "empty": lambda good: [[] for _ in good],
    "too few": lambda good: good[:-1],
    "too many": lambda good: [*good, good[0]],
    "ragged": lambda good: [*good[:-1], good[-1][:-1]],
    "words": lambda good: ["vector" for _ in good],
    "none": lambda good: None,
}
TWO = " ".join(f"word{n}" for n in range(20))
HASTY = {"strategy": "hybrid", "embedding_model": "hasty"}
"""Waits for its engine no longer than a second."""
CUT = json.dumps({"size": 10, "overlap": 0})


@pytest.mark.parametrize("kind", BAD_VECTORS)
async def test_vectors_that_are_none_are_refused_and_not_stored(house: House, kind: str) -> None:
    name = "bad-" + kind.replace(" ", "-")
    await house.still_works(name, strategy="hybrid", chunking=CUT)
    house.engine.spoil = BAD_VECTORS[kind]
    sent = await house.send(("a.txt", TWO.encode()), collection=name, strategy="hybrid")
    done = await house.end_of(sent)
    assert (done["error"]["code"], done["error"]["status"]) == ("bad_embedding", 422)
    assert not await house.stored("chunks", "chunk_terms", document=done["id"])
    query = "SELECT 1 FROM millrace.drafts WHERE document_id = :id AND embedding IS NOT NULL"
    assert await house.mill.rows(query, id=done["id"]) == []
    asked = {"query": "word1", "collection": name}
    refused = await house.mill.http.post("/v1/search", json=asked)
    # A question is one text: of a ragged answer it gets one vector, and a short one.
    expected = (409, "embedding_model_mismatch") if kind == "ragged" else (502, "bad_embedding")
    assert code(refused) == expected
    house.engine.spoil = None
    assert (await house.mill.http.post(f"/v1/documents/{done['id']}/retry")).status_code == 200
    assert (await house.end_of(sent))["state"] == "ready"


async def test_another_dimension_names_the_remedy_in_documents_and_in_searches(
    house: House,
) -> None:
    await house.still_works("drift", strategy="hybrid")
    house.engine.spoil = lambda good: [vector[:8] for vector in good]
    sent = await house.send(("a.txt", b"wheel"), collection="drift", strategy="hybrid")
    done = await house.end_of(sent)
    assert (done["error"]["code"], done["error"]["status"]) == ("embedding_model_mismatch", 409)
    assert "millrace reindex drift" in done["error"]["message"]
    assert not await house.stored("chunks", document=done["id"])
    asked = {"query": "wheel", "collection": "drift"}
    answer = await house.mill.http.post("/v1/search", json=asked)
    assert code(answer) == (409, "embedding_model_mismatch")
    assert "millrace reindex drift" in answer.json()["error"]["message"]


async def test_more_dimensions_than_an_index_can_have_are_refused(house: House) -> None:
    house.engine.spoil = lambda good: [[1.0] * 2001 for _ in good]
    sent = await house.send(("a.txt", b"wheel"), collection="wide", strategy="hybrid")
    done = await house.end_of(sent)
    assert (done["error"]["code"], done["error"]["status"]) == ("dimension_too_large", 422)
    assert not await house.stored("chunks", document=done["id"])
    wide = (await house.mill.http.get("/v1/collections/wide")).json()
    assert (wide["dimension"], wide["chunks"]) == (None, 0)
    house.engine.spoil = None
    await house.still_works("wide", strategy="hybrid")


@pytest.mark.parametrize("mood", ["a page", "nothing"])
async def test_an_engine_that_gives_pages_or_nothing_is_asked_again_and_then_given_up(
    house: House, mood: str
) -> None:
    name = mood.replace(" ", "-")
    await house.still_works(name, **HASTY)
    house.engine.page = b"<html>502 Bad Gateway</html>" if mood == "a page" else None
    house.engine.hangs = mood == "nothing"
    sent = await house.send(("a.txt", b"wheel"), collection=name, **HASTY)
    done = await house.end_of(sent)
    assert (done["error"]["code"], done["error"]["status"]) == ("embedding_unavailable", 503)
    assert "<html>" not in done["error"]["message"]
    assert done["attempt"] == 2
    asked = {"query": "gate", "collection": name}
    words = await house.mill.http.post("/v1/search", json=asked)
    assert (words.status_code, words.json()["degraded"]) == (200, ["dense"])
    dense = await house.mill.http.post("/v1/search", json=asked | {"strategy": "dense"})
    assert code(dense) == (503, "service_unavailable")
    house.engine.page, house.engine.hangs = None, False
    await house.still_works(name, **HASTY)


async def test_in_the_end_nothing_waits_and_nothing_is_left_of_what_failed(house: House) -> None:
    query = "SELECT DISTINCT state FROM millrace.documents"
    states = {row[0] for row in await house.mill.rows(query)}
    assert states == {"ready", "failed"}
    orphans = """
        SELECT 1 FROM millrace.chunks c JOIN millrace.documents d ON d.id = c.document_id
         WHERE d.state = 'failed'
    """
    assert await house.mill.rows(orphans) == []
