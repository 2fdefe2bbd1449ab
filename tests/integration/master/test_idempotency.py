"""The same request sent twice is one request (C28 to C30, B01, B02)."""

import asyncio
from typing import Any

import pytest

from millrace.chaos.stack import until
from millrace.one_machine import make_key
from tests.integration.master.conftest import MakeMill
from tests.integration.master.gated import Gates
from tests.integration.master.mill import Mill, a_script

PACED = a_script(text="{prompt} goes round and round and round", tokens_per_second=20)


async def post(mill: Mill, content: str, headers: dict[str, str], **more: Any) -> Any:
    body = mill.body(content, **more)
    return await mill.http.post("/v1/chat/completions", json=body, headers=headers)


KEYED = {"Idempotency-Key": "first"}


async def test_the_same_key_and_body_is_one_request_with_one_answer(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    first = await post(mill, "Why?", KEYED)
    again = await post(mill, "Why?", KEYED)
    other = await post(mill, "Why?", {"Idempotency-Key": "second"})
    assert first.status_code == again.status_code == other.status_code == 200
    request = first.headers["x-millrace-request-id"]
    assert again.headers["x-millrace-request-id"] == request
    assert other.headers["x-millrace-request-id"] != request
    assert again.json()["choices"] == first.json()["choices"]
    assert await mill.count("requests") == 2
    assert await mill.count("attempts") == 2


async def test_the_same_key_while_it_runs_attaches_to_the_running_stream(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(PACED)
    answers = await asyncio.gather(*(post(mill, "Why?", KEYED) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-millrace-request-id"] for answer in answers}) == 1
    assert {a.json()["choices"][0]["message"]["content"] for a in answers} == {
        "Why? goes round and round and round"
    }
    assert await mill.count("attempts") == 1
    await mill.idle()


async def test_the_same_key_with_another_body_is_422_and_not_tried_again(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    await post(mill, "Why?", KEYED)
    refused = await post(mill, "How?", KEYED)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    assert await mill.count("requests") == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schlüssel"])
async def test_an_unusable_key_is_400(make_mill: MakeMill, key: str) -> None:
    mill = await make_mill(a_script())
    refused = await mill.http.post(
        "/v1/chat/completions",
        json=mill.body(),
        headers={"Idempotency-Key": key.encode("latin-1")},  # type: ignore[dict-item]
    )
    assert refused.status_code == 400
    assert await mill.count("requests") == 0


async def test_a_client_that_left_and_comes_back_is_answered_anew(make_mill: MakeMill) -> None:
    gates = Gates(2)
    mill = await make_mill(PACED, provider=gates)
    body = mill.body("Why?", stream=True)
    async with mill.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=KEYED
    ) as response:
        request = response.headers["x-millrace-request-id"]
        async for line in response.aiter_lines():
            if "goes" in line:
                break
    await mill.until_state(request, "cancelled")
    gates.open("mill")
    again = await post(mill, "Why?", KEYED, stream=True)
    assert again.status_code == 200
    assert again.headers["x-millrace-request-id"] != request
    assert "[DONE]" in again.text


async def test_one_tenants_key_is_nothing_to_another(make_mill: MakeMill) -> None:
    mill = await make_mill(a_script())
    await post(mill, "Why?", KEYED)
    stranger = await make_key(mill.database_url, "globex", "tests")
    answer = await post(mill, "How?", {**KEYED, "Authorization": f"Bearer {stranger}"})
    assert answer.status_code == 200


async def test_open_webui_sends_a_message_id_again_for_its_tools_and_gets_another_request(
    make_mill: MakeMill,
) -> None:
    mill = await make_mill(a_script())
    message = {"X-Millrace-Message-Id": "7f2c"}
    first = await post(mill, "Why?", message)
    same = await post(mill, "Why?", message)
    tools = await post(mill, "Why, with what the tool said?", message)
    requests = [a.headers["x-millrace-request-id"] for a in (first, same, tools)]
    assert requests[0] == requests[1] != requests[2]

    async def settled() -> bool:
        return await mill.count("attempts") == 2

    assert await until(settled, 30)
