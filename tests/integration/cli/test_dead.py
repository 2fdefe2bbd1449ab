import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika

from queue_schemas import topology
from queue_schemas.codec import encode
from tests.doubles.subtasks import a_subtask
from tests.doubles.traces import read
from tests.integration.cli.command_line import millrace
from tests.integration.cli.ledger import Books, write

MODELS = "models:\n- {name: mill, provider: scripted}\n- {name: other, provider: scripted}\n"


def dead(url: str, *arguments: str, **settings: str) -> tuple[int, str, str]:
    done = millrace("dead", *arguments, DATABASE_URL=url, **settings)
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80 or "--json" in arguments
    return done.returncode, done.stdout, done.stderr


async def make_dead(books: Books) -> Any:
    return await books.dead()


def test_a_dead_subtask_is_listed_shown_and_dropped(migrated_url: str) -> None:
    assert "No dead subtask waits" in dead(migrated_url, "list")[1]
    [(request, subtask)] = asyncio.run(write(migrated_url, make_dead))

    listed = dead(migrated_url, "list")[1]
    assert str(subtask)[:8] in listed
    assert "engine_busy: no room" in listed
    [row] = json.loads(dead(migrated_url, "list", "--json")[1])["subtasks"]
    assert (row["id"], row["request"]) == (str(subtask), str(request))
    assert dead(migrated_url, "list", "--model", "other")[1].startswith("No dead")
    assert "1 dead subtask" in dead(migrated_url, "list", "--since", "1h")[1]

    page = dead(migrated_url, "show", str(request)[:8])[1]
    for part in (str(subtask), str(request), "Why does it turn?", "And when?", "…", "mill-1"):
        assert part in page
    assert "And who?" not in page
    assert "engine_busy: no room" in page

    assert f"{subtask} is dropped." in dead(migrated_url, "drop", str(subtask)[:8])[1]
    assert "1 had been dropped before." in dead(migrated_url, "drop", str(subtask))[1]
    assert "No dead subtask waits" in dead(migrated_url, "list")[1]
    assert "dropped · engine_busy" in dead(migrated_url, "list", "--settled")[1]


def test_doing_it_again_twice_makes_one_request(migrated_url: str, tmp_path: Path) -> None:
    models = tmp_path / "models.yaml"
    models.write_text(MODELS)
    [(request, subtask), (second, _)] = asyncio.run(write(migrated_url, make_dead, make_dead))
    settings = {"MILLRACE_MODELS": str(models)}
    code, first, _ = dead(migrated_url, "retry", str(subtask), "--model", "other", **settings)
    assert code == 0
    assert first.startswith(f"{str(request)[:8]} is done again as ")
    again = dead(migrated_url, "retry", str(request), **settings)[1]
    assert again == first.replace("is done again", "was done again before")

    spans, folder = tmp_path / "spans", tmp_path / "logs"
    settings |= {"MILLRACE_TRACING": f"file:{spans}", "MILLRACE_LOG_FOLDER": str(folder)}
    code, said, errors = dead(migrated_url, "retry", "--all", "--json", **settings)
    [rest] = json.loads(said)
    assert (rest["request"], rest["fresh"], errors) == (str(second), True, "")
    [submit] = read(spans)
    assert (submit.name, submit.says("request")) == ("submit", rest["redriven_as"])
    line = json.loads((folder / "dead.jsonl").read_text())
    assert (line["event"], line["request"]) == ("request.accepted", rest["redriven_as"])
    assert (line["trace"], line["redriven_from"]) == (submit.trace, str(second))
    assert dead(migrated_url, "retry", "--all")[1] == "No dead subtask waits for a decision.\n"
    assert "done again as" in dead(migrated_url, "list", "--settled")[1]


def test_what_cannot_be_meant_is_one_clear_line(migrated_url: str, tmp_path: Path) -> None:
    asyncio.run(write(migrated_url, make_dead))
    models = tmp_path / "models.yaml"
    models.write_text(MODELS)
    assert dead(migrated_url, "show", "3f2a")[::2] == (
        1,
        "millrace: '3f2a' is no id: give at least its first 6 characters.\n",
    )
    code, _, said = dead(migrated_url, "show", str(uuid4()))
    assert code == 1
    assert "no dead subtask or request begins with" in said
    code, _, said = dead(migrated_url, "retry")
    assert code == 2
    assert "give an ID or --all" in said
    code, _, said = dead(
        migrated_url, "retry", "--all", "--model", "x", MILLRACE_MODELS=str(models)
    )
    assert code == 1
    assert said == "millrace: there is no model 'x'; there are: mill, other.\n"
    code, _, said = dead(migrated_url, "list", "--since", "soon")
    assert code == 2
    assert "'soon' is no span of time" in said


async def test_messages_put_aside_are_explained_and_stay(
    migrated_url: str, rabbitmq_url: str
) -> None:
    [(_, subtask)] = await write(migrated_url, make_dead)
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for queue in (topology.DEAD, topology.QUARANTINE):
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments()))
        letter, _ = encode(a_subtask(subtask=subtask))
        strange = {"x-millrace-reason": "body: not JSON", "x-millrace-queue": "results"}
        for queue, body, headers in (
            ("dead", letter, {}),
            ("quarantine", b"\x00gibberish", strange),
        ):
            message = aio_pika.Message(body, headers=dict(headers))
            await channel.default_exchange.publish(message, routing_key=queue)

        for _ in range(3):
            settings = {"RABBITMQ_URL": rabbitmq_url}
            shown = await asyncio.to_thread(dead, migrated_url, "show", "--letters", **settings)
            assert f"subtask {subtask}, attempt 1: its subtask is dead" in " ".join(
                shown[1].split()
            )
            assert "dead: 1 message, 1 shown, none taken." in shown[1]
            shown = await asyncio.to_thread(dead, migrated_url, "show", "--quarantine", **settings)
            assert "1. from results: body: not JSON" in shown[1]
            assert "gibberish" in shown[1]
        listed = await asyncio.to_thread(dead, migrated_url, "list", **settings)
        assert "dead: 1 · quarantine: 1" in listed[1]
