"""Answers from documents: what the model is given, and what the client is told of it."""

from typing import Any

import openai
import pytest

from db import tenants
from tests.integration.db.corpus_acts import collection_of, published
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

TEXTS = (
    "The weir holds the water back so that the wheel turns evenly.",
    "A miller takes a tenth of the flour as his wage.",
    "Error E-4711 means that the sluice is blocked by branches.",
    "In winter the race freezes, and the mill stands still.",
)
THREE = "1. What does the weir do?\n2. What does error E-4711 mean?\n3. What does a miller take?"
QUOTER = {"name": "quoter", "provider": "extractive", "slots": 4}
CITING = a_script(text="The wage is a tenth of the flour [1]. It was made up [7].")


async def fill(mill: Mill, tenant: str = "acme", name: str = "default") -> None:
    engine = mill.running.engine
    async with engine.begin() as connection:
        owner = await tenants.ensure_tenant(connection, tenant)
    collection = await collection_of(engine, owner, name=name)
    await published(engine, collection, "mill.md", TEXTS, metadata={"kind": "book"})


async def answered(mill: Mill, content: str, **more: Any) -> dict[str, Any]:
    response = await mill.ask(content, more.pop("model", "millrace/rag"), **more)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_the_model_is_given_what_was_found_and_told_to_use_nothing_else(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text="{prompt}"))
    await fill(mill)
    answer = await answered(mill, "What does a miller take?")
    prompt = answer["choices"][0]["message"]["content"]
    assert "Answer only from these sources" in prompt
    assert f"[1] mill.md\n{TEXTS[1]}" in prompt
    assert prompt.endswith("What does a miller take?")


async def test_a_whole_answer_comes_with_its_sources_and_where_it_cites_them(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    answer = await answered(mill, "What does a miller take?")
    first = answer["sources"][0]
    assert (first["number"], first["text"], first["metadata"]) == (1, TEXTS[1], {"kind": "book"})
    assert 0 < first["rerank_score"] <= 1
    [cited] = answer["choices"][0]["message"]["annotations"]
    place = cited["url_citation"]
    text = answer["choices"][0]["message"]["content"]
    assert text[place["start_index"] : place["end_index"]] == "[1]"
    assert place["title"] == "mill.md"


async def test_the_record_leads_from_a_sentence_to_subtask_model_and_chunk(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    streamed = await mill.streamed("What does a miller take?", "millrace/rag")
    record = await mill.record(streamed.request)
    good, bad = record["citations"]
    assert good["sentence"] == "The wage is a tenth of the flour [1]."
    assert good["subtask"] == record["subtasks"][0]["id"]
    assert good["model"] == "mill"
    assert [source["chunk"] for source in good["sources"]] == [record["sources"][0]["chunk"]]
    assert (bad["sources"], bad["unknown"]) == ([], [7])
    assert record["retrieved"]["collection"] == "default"
    assert record["retrieved"]["latency_ms"]["total"] > 0


async def test_parts_look_up_for_themselves_and_share_one_numbering(make_mill: MakeMill) -> None:
    mill = await make_mill(QUOTER)
    await fill(mill)
    streamed = await mill.streamed(THREE, "millrace/rag")
    record = await mill.record(streamed.request)
    assert record["strategy"] == "rag"
    assert [step["lookup"] for step in record["plan"]["steps"]] == [
        "What does the weir do?",
        "What does error E-4711 mean?",
        "What does a miller take?",
    ]
    numbers = [source["number"] for source in record["sources"]]
    assert numbers == list(range(1, len(numbers) + 1))
    texts = {source["number"]: source["text"] for source in record["sources"]}
    for text, part in zip(
        (TEXTS[0], TEXTS[2], TEXTS[1]), ("part-1", "part-2", "part-3"), strict=True
    ):
        [line] = [one for one in record["citations"] if one["step"] == part]
        assert text.rstrip(".") in line["sentence"]
        assert texts[line["sources"][0]["number"]] == text


async def test_open_webui_gets_source_events_in_the_order_of_their_numbers(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    mill.http.headers["x-openwebui-chat-id"] = "c"
    streamed = await mill.streamed("What does a miller take?", "millrace/rag")
    events = [
        f["event"]["data"]
        for f in streamed.frames
        if "event" in f and f["event"]["type"] == "source"
    ]
    record = await mill.record(streamed.request)
    assert [event["document"] for event in events] == [[s["text"]] for s in record["sources"]]
    assert len({event["metadata"][0]["source"] for event in events}) == len(events)
    assert not any("sources" in frame for frame in streamed.frames if isinstance(frame, dict))


async def test_other_clients_get_the_sources_with_the_end_of_the_stream(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    streamed = await mill.streamed("What does a miller take?", "millrace/rag")
    assert not any("event" in frame for frame in streamed.frames)
    [last] = [frame for frame in streamed.frames if "sources" in frame]
    assert [source["number"] for source in last["sources"]][:1] == [1]
    assert last["choices"][0]["delta"]["annotations"][0]["type"] == "url_citation"
    assert streamed.ends_once()


async def test_the_openai_sdk_reads_answers_with_sources(make_mill: MakeMill) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    async with openai.AsyncOpenAI(base_url=f"{mill.url}/v1", api_key=mill.key) as client:
        whole = await client.chat.completions.create(
            model="millrace/rag", messages=[{"role": "user", "content": "What does a miller take?"}]
        )
        annotations = whole.choices[0].message.annotations
        assert annotations is not None
        assert annotations[0].url_citation.title == "mill.md"
        stream = await client.chat.completions.create(
            model="millrace/rag",
            messages=[{"role": "user", "content": "What does a miller take?"}],
            stream=True,
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content
        response = await client.responses.create(
            model="millrace/rag", input="What does a miller take?"
        )
        [item] = response.output
        assert item.type == "message"
        [part] = item.content
        assert part.type == "output_text"
        assert [note.type for note in part.annotations] == ["file_citation"]


async def test_a_collection_can_be_chosen_as_a_model_and_is_listed_as_one(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(CITING)
    await fill(mill, name="handbook")
    await fill(mill, tenant="other", name="secrets")
    listed = [model["id"] for model in (await mill.http.get("/v1/models")).json()["data"]]
    assert "millrace/rag:handbook" in listed
    assert "millrace/rag:secrets" not in listed
    answer = await answered(mill, "What does a miller take?", model="millrace/rag:handbook")
    assert answer["sources"]


@pytest.mark.parametrize("model", ["millrace/rag", "millrace/rag:secrets", "mill"])
async def test_a_collection_that_is_not_there_is_named(make_mill: MakeMill, model: str) -> None:
    mill = await make_mill(CITING)
    await fill(mill, tenant="other", name="secrets")
    more = {"retrieval": {"collection": "secrets"}} if model == "mill" else {}
    refused = await mill.ask("What does a miller take?", model, **more)
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "collection_not_found"
    assert await mill.count("requests") == 0


async def test_another_tenants_documents_answer_nothing(make_mill: MakeMill) -> None:
    mill = await make_mill(QUOTER)
    await fill(mill, tenant="other")
    engine = mill.running.engine
    async with engine.begin() as connection:
        owner = await tenants.ensure_tenant(connection, "acme")
    collection = await collection_of(engine, owner)
    await published(engine, collection, "own.md", ["The cat sleeps on the sacks."])
    answer = await answered(mill, "What does error E-4711 mean?")
    assert "sluice" not in str(answer)
    assert {source["name"] for source in answer.get("sources", [])} <= {"own.md"}
    found = await mill.http.post("/v1/search", json={"query": "E-4711 sluice cat"})
    assert [hit["document"]["name"] for hit in found.json()["hits"]] == ["own.md"]


async def test_a_real_model_answers_from_documents_when_the_body_says_so(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script(text="{prompt}"))
    await fill(mill)
    wish = {"collection": "default", "top": 1, "filter": {"kind": "book"}}
    answer = await answered(mill, "What does a miller take?", model="mill", retrieval=wish)
    assert [source["text"] for source in answer["sources"]] == [TEXTS[1]]
    nothing = {"collection": "default", "filter": {"kind": "letter"}}
    plain = await answered(mill, "What does a miller take?", model="mill", retrieval=nothing)
    assert "sources" not in plain
    assert plain["choices"][0]["message"]["content"] == "What does a miller take?"


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"collection": "No!"}, "retrieval.collection"),
        ({"top": 0}, "retrieval.top"),
        ({"top": "3"}, "retrieval.top"),
        ({"filter": []}, "retrieval.filter"),
        ("default", "retrieval"),
    ],
)
async def test_a_wrong_wish_is_refused_by_its_field(
    make_mill: MakeMill, wish: Any, param: str
) -> None:
    mill = await make_mill(CITING)
    refused = await mill.ask("What does a miller take?", "mill", retrieval=wish)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


async def test_where_nothing_is_found_the_model_is_told_to_say_so(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(text="{prompt}"))
    await fill(mill)
    answer = await answered(mill, "xyzzy?")
    assert "have nothing on the following" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"query": ""}, 400, "query"),
        ({"query": "   "}, 400, "query"),
        ({"query": "x" * 10_001}, 400, "query"),
        ({"query": "x", "top": 101}, 400, "top"),
        ({"query": "x", "strategy": "both"}, 400, "strategy"),
        ({"query": "x", "dense_weight": 1.5}, 400, "dense_weight"),
        ({"query": "x", "typo": 1}, 400, "typo"),
        ({}, 400, "query"),
        ({"query": "x", "collection": "nowhere"}, 404, "collection"),
        ({"query": "foo & |"}, 200, None),
    ],
    ids=range(10),
)
async def test_searches_are_checked(
    make_mill: MakeMill, body: dict[str, Any], status: int, param: str | None
) -> None:
    mill = await make_mill(CITING)
    await fill(mill)
    answer = await mill.http.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    if param:
        assert answer.json()["error"]["param"] == param
