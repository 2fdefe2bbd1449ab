"""`/v1/collections` over real HTTP."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx2
import pytest

from millrace.chaos.engine import serve
from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.doubles.embedding_engine import EmbeddingEngine
from tests.integration.master.mill import Mill, a_script, installation
from tests.integration.retrieval.ingests import embedding_entry

PATH = "/v1/collections"


@pytest.fixture
def embedding() -> Iterator[tuple[EmbeddingEngine, str]]:
    made = EmbeddingEngine()
    with serve(made) as url:
        yield made, url


@pytest.fixture
async def mill(migrated_url: str, embedding: tuple[EmbeddingEngine, str]) -> AsyncGenerator[Mill]:
    entries = [embedding_entry(embedding[1], name) for name in ("vectors", "others")]
    async with installation(
        migrated_url, a_script(name="chat"), *entries, ingest_seconds=0.5
    ) as made:
        yield made


async def add(mill: Mill, *texts: str, collection: str = "default") -> None:
    for text in texts:
        body = {"text": text, "collection": collection}
        assert (await mill.http.post("/v1/documents", json=body)).status_code == 202
    await until_ready(mill, len(texts), collection)


async def until_ready(mill: Mill, count: int, collection: str = "default") -> dict[str, Any]:
    async def ready() -> dict[str, Any] | None:
        found: dict[str, Any] = (await mill.http.get(f"{PATH}/{collection}")).json()
        return found if found["documents"]["ready"] == count else None

    return await until(ready, 30)


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_collection_has_defaults_that_the_registry_allows(mill: Mill) -> None:
    answer = await mill.http.post(PATH, json={"name": "letters"})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["strategy"], made["embedding_model"]) == ("hybrid", "vectors")
    assert made["chunking"] == {"method": "words", "size": 512, "overlap": 50}
    assert (made["language"], made["dense_weight"], made["dimension"]) == ("english", 0.7, None)
    assert made["documents"] == {"total": 0, "waiting": 0, "running": 0, "ready": 0, "failed": 0}
    again = await mill.http.post(PATH, json={"name": "letters", "strategy": "hybrid"})
    assert again.json() == made
    other = await mill.http.post(PATH, json={"name": "letters", "strategy": "sparse"})
    assert code(other) == (409, "collection_differs")


async def test_counts_follow_what_is_stored(mill: Mill) -> None:
    await add(mill, "one mill", "two mills")
    (listed,) = (await mill.http.get(PATH)).json()["data"]
    assert (listed["name"], listed["chunks"], listed["dimension"]) == ("default", 2, 16)
    assert listed["documents"]["ready"] == 2
    gone = await mill.http.delete(f"{PATH}/default")
    assert gone.json() == {"id": "default", "object": "collection", "deleted": True}
    assert await mill.count("chunks") == 0
    assert code(await mill.http.get(f"{PATH}/default")) == (404, "not_found")
    assert code(await mill.http.delete(f"{PATH}/default")) == (404, "not_found")


async def test_another_model_embeds_everything_anew(mill: Mill) -> None:
    await add(mill, "one mill", "two mills")
    answer = await mill.http.patch(f"{PATH}/default", json={"embedding_model": "others"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["embedding_model"] == "others"
    await until_ready(mill, 2)
    rows = await mill.rows("SELECT DISTINCT embedded_by FROM millrace.chunks")
    assert [row[0] for row in rows] == ["others"]


async def test_a_model_of_another_dimension_needs_a_reindex_and_no_more(
    mill: Mill, embedding: tuple[EmbeddingEngine, str]
) -> None:
    await add(mill, "one mill")
    embedding[0].dimension = 8
    body = {"text": "two mills"}
    sent = (await mill.http.post("/v1/documents", json=body)).json()["data"][0]

    async def failed() -> dict[str, Any] | None:
        found: dict[str, Any] = (await mill.http.get(f"/v1/documents/{sent['id']}")).json()
        return found if found["state"] == "failed" else None

    error = (await until(failed, 30))["error"]
    assert (error["code"], error["status"]) == ("embedding_model_mismatch", 409)
    assert (await mill.http.post(f"{PATH}/default/reindex")).status_code == 200
    assert (await until_ready(mill, 2))["dimension"] == 8


async def test_other_chunking_cuts_everything_anew_and_a_weight_does_not(mill: Mill) -> None:
    await add(mill, " ".join(f"word{n}" for n in range(30)))
    weighed = await mill.http.patch(f"{PATH}/default", json={"dense_weight": 0.25})
    assert (weighed.json()["dense_weight"], weighed.json()["documents"]["ready"]) == (0.25, 1)
    answer = await mill.http.patch(f"{PATH}/default", json={"chunking": {"size": 10}})
    assert answer.json()["chunking"] == {"method": "words", "size": 10, "overlap": 1}

    async def more() -> bool:
        found = (await mill.http.get(f"{PATH}/default")).json()
        return bool(found["documents"]["ready"] == 1 and found["chunks"] > 1)

    await until(more, 30)


async def test_an_empty_change_changes_nothing(mill: Mill) -> None:
    await add(mill, "one mill")
    before = (await mill.http.get(f"{PATH}/default")).json()
    assert (await mill.http.patch(f"{PATH}/default", json={})).json() == before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"strategy": "guessing"}, "strategy"),
        ({"chunking": {"method": "dice"}}, "chunking.method"),
        ({"chunking": {"size": 10, "overlap": 6}}, "chunking.overlap"),
        ({"chunking": {"size": 2001}}, "chunking.size"),
        ({"chunking": {"size": "10"}}, "chunking.size"),
        ({"dense_weight": 1.5}, "dense_weight"),
        ({"colour": "blue"}, "colour"),
    ],
)
async def test_settings_that_make_no_sense_are_named(
    mill: Mill, body: dict[str, Any], param: str
) -> None:
    await mill.http.post(PATH, json={"name": "there"})
    for answer in (
        await mill.http.post(PATH, json={"name": "new", **body}),
        await mill.http.patch(f"{PATH}/there", json=body),
    ):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param
    assert await mill.count("collections") == 1


@pytest.mark.parametrize("name", ["", "A", "a b", "..", ".a", "a" * 65, "a/b", "ä", "a\n"])
async def test_names_that_are_none_are_refused(mill: Mill, name: str) -> None:
    answer = await mill.http.post(PATH, json={"name": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


async def test_models_that_do_not_embed_are_not_found(mill: Mill) -> None:
    for model in ("chat", "nobody"):
        answer = await mill.http.post(PATH, json={"name": "a", "embedding_model": model})
        assert code(answer) == (404, "model_not_found")
        assert "vectors, others" in answer.json()["error"]["message"]
        await mill.http.post(PATH, json={"name": "b"})
        answer = await mill.http.patch(f"{PATH}/b", json={"embedding_model": model})
        assert code(answer) == (404, "model_not_found")


async def test_what_is_anothers_is_not_there(mill: Mill) -> None:
    await mill.http.post(PATH, json={"name": "mine"})
    other = await make_key(mill.database_url, "other", "tests")
    headers = {"Authorization": f"Bearer {other}"}
    for method, path, body in (
        ("GET", f"{PATH}/mine", None),
        ("PATCH", f"{PATH}/mine", {"dense_weight": 0.1}),
        ("POST", f"{PATH}/mine/reindex", None),
        ("DELETE", f"{PATH}/mine", None),
        ("GET", f"{PATH}/%00", None),
    ):
        answer = await mill.http.request(method, path, json=body, headers=headers)
        assert code(answer) == (404, "not_found"), (method, path)
    assert (await mill.http.get(PATH, headers=headers)).json()["data"] == []
    assert (await mill.http.get(f"{PATH}/mine")).status_code == 200
