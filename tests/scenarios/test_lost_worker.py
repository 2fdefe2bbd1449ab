"""A worker is killed in the middle of a split answer."""

from typing import Any

from millrace.chaos.stack import until
from tests.scenarios.conftest import MakeStack

PARTS = 4
WORDS = 40
QUESTION = "\n".join(
    f"{n}. What is {thing}, in all detail that you can give?"
    for n, thing in enumerate(("a mill", "a wheel", "a race", "a stone"), start=1)
)


def script(**options: Any) -> dict[str, Any]:
    """A model that says so many words at a steady rate."""
    text = "{step} " + " ".join(f"word{n}" for n in range(WORDS))
    return {
        "name": "scripted",
        "provider": "scripted",
        "slots": 1,
        "max_workers": PARTS,
        "options": {"text": text, "tokens_per_second": 3, **options},
    }


async def test_the_answer_of_a_split_is_whole_and_unrepeated_when_a_worker_is_killed(
    make_stack: MakeStack,
) -> None:
    stack = make_stack(script())
    await stack.start(scripted=PARTS + 1)  # one is free to take over
    async with stack.client() as client:
        stream = await client.chat.completions.create(
            model="millrace/split", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        request = stream.response.headers["x-millrace-request-id"]

        async def all_run() -> list[str] | None:
            subtasks = (await stack.record(request))["subtasks"]
            running = [s["worker"] for s in subtasks if s["state"] == "running"]
            return running if len(running) == PARTS else None

        text, killed = "", ""
        async for chunk in stream:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            if not killed and "word3" in text:
                workers = await until(all_run, 60)
                assert len(set(workers)) == PARTS, "the parts do not run in parallel"
                killed = workers[0]
                stack.worker(killed).kill()

    record = await stack.ended(request)
    titles = [step["title"] for step in record["plan"]["steps"]]
    parts = [
        f"## {title}\n\npart-{n} " + " ".join(f"word{w}" for w in range(WORDS))
        for n, title in enumerate(titles, start=1)
    ]
    assert text == "\n\n".join(parts)
    assert record["answer"] == text
    assert record["state"] == "completed"
    first = record["subtasks"][0]
    assert first["worker"] != killed
    assert record["measured"]["speedup"] is not None
    assert record["measured"]["extra_tokens"] > 0
