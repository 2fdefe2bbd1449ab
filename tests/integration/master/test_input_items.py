"""`client.responses.input_items.list`: what a response was made from."""

from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.mill import Mill, a_script

SCRIPT = a_script(text="You said: {prompt}")
PIXELS = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADElEQVR4nGNg"
    "+A+EAAYAAf+T0eSJAAAAAElFTkSuQmCC"
)
CONVERSATION: list[Any] = [
    {"role": "user", "content": "What is the weather in Ulm?"},
    {"type": "function_call", "call_id": "call_7", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_7", "output": "rain"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
    {"role": "user", "content": [{"type": "input_text", "text": "And tomorrow?"}]},
]
_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def client_of(mill: Mill, key: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{mill.url}/v1", api_key=key or mill.key, max_retries=0)


def plain(item: Any) -> dict[str, Any]:
    """An item without what identifies it."""
    fields: dict[str, Any] = item.model_dump(exclude_unset=True, exclude={"id", "status"})
    return fields


async def test_the_items_of_an_input_are_listed_the_last_one_first(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    async with client_of(mill) as client:
        answer = await client.responses.create(
            model="mill", input=CONVERSATION, instructions="Be brief."
        )
        page = await client.responses.input_items.list(answer.id)
        forward = await client.responses.input_items.list(answer.id, order="asc")
    assert [item.id for item in forward.data] == [item.id for item in reversed(page.data)]
    assert len({item.id for item in page.data}) == 5
    assert page.has_more is False
    assert [plain(item) for item in forward.data] == [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is the weather in Ulm?"}],
        },
        CONVERSATION[1],
        CONVERSATION[2],
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "It rains.", "annotations": []}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "And tomorrow?"}],
        },
    ]
    for item in forward.data:
        _ITEM.validate_python(item.model_dump(), strict=False)


async def test_the_sdk_turns_the_pages(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    asked: list[Any] = [{"role": "user", "content": f"question {n}"} for n in range(25)]
    async with client_of(mill) as client:
        answer = await client.responses.create(model="mill", input=asked)
        first = await client.responses.input_items.list(answer.id)
        assert (len(first.data), first.has_more) == (20, True)
        listed = client.responses.input_items.list(answer.id, limit=7, order="asc")
        texts = [item.content[0].text async for item in listed]  # type: ignore[union-attr]
    assert texts == [f"question {n}" for n in range(25)]


async def test_a_response_that_goes_on_lists_the_conversation_before_it(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(SCRIPT)
    async with client_of(mill) as client:
        before = await client.responses.create(model="mill", input="One?", instructions="Be brief.")
        after = await client.responses.create(
            model="mill", input="Two?", previous_response_id=before.id
        )
        page = await client.responses.input_items.list(after.id, order="asc")
    texts = [item.content[0].text for item in page.data]  # type: ignore[union-attr]
    assert texts == ["One?", before.output_text, "Two?"]


async def test_an_image_is_listed_as_it_was_sent(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script(entry={"capabilities": ["chat", "vision"]}))
    part = {"type": "input_image", "image_url": PIXELS, "detail": "low"}
    asked: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, part]}
    ]
    async with client_of(mill) as client:
        answer = await client.responses.create(model="mill", input=asked)
        page = await client.responses.input_items.list(answer.id)
    (item,) = page.data
    assert plain(item)["content"] == asked[0]["content"]


async def test_items_of_another_tenant_or_of_no_response_do_not_exist(make_mill: MakeMill) -> None:
    mill = await make_mill(SCRIPT)
    rival = await make_key(mill.database_url, "rival", "tests")
    async with client_of(mill) as client, client_of(mill, rival) as other:
        answer = await client.responses.create(model="mill", input="Why?")
        with pytest.raises(NotFoundError, match="does not exist"):
            await other.responses.input_items.list(answer.id)
        await client.responses.delete(answer.id)
        for absent in (answer.id, "resp_x", f"resp_{'0' * 32}"):
            with pytest.raises(NotFoundError, match="does not exist"):
                await client.responses.input_items.list(absent)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_of_another"}, "after"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(
    make_mill: MakeMill, query: dict[str, str], param: str
) -> None:
    mill = await make_mill(SCRIPT)
    made = await mill.http.post("/v1/responses", json={"model": "mill", "input": "Why?"})
    path = f"/v1/responses/{made.json()['id']}/input_items"
    answer = await mill.http.get(path, params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
