import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aio_pika
import pytest

from millrace.chaos.machine import free_port
from queue_schemas import topology
from tests.integration.cli.command_line import ROOT, millrace

EXTRACTIVE = str(ROOT / "millrace/models/one-machine.yaml")
CLUSTER = str(ROOT / "models.yaml")


def findings(**settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
    settings = {"MILLRACE_PORT": str(free_port()), "MILLRACE_MODELS": EXTRACTIVE, **settings}
    done = millrace("doctor", "--json", **settings)
    assert done.stderr == ""
    return done.returncode, {found["name"]: found for found in json.loads(done.stdout)}


def answered(**settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The findings where all that is configured does answer.

    Each has three seconds, in which this machine may stand still; then they are looked for again.
    """
    for _ in range(5):
        code, found = findings(**settings)
        if not any("answer" in each["text"] for each in found.values()):
            break
    return code, found


@contextlib.contextmanager
def ollama(*models: str) -> Iterator[str]:
    """What Ollama answers to the two questions of the doctor."""
    answers = {
        "/api/version": {"version": "0.12.6"},
        "/api/tags": {"models": [{"name": name} for name in models]},
    }

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_what_is_not_configured_is_not_used_and_no_failure() -> None:
    code, found = findings()
    assert code == 0
    assert found["Postgres"]["verdict"] == "not used"
    assert found["RabbitMQ"]["verdict"] == "not used"
    assert found["Embedded Postgres"]["verdict"] == "ok"
    assert found["Python"]["verdict"] == "ok"
    assert found["Models"]["text"].endswith("extractive")


def test_what_is_configured_and_does_not_answer_fails_with_a_remedy() -> None:
    code, found = findings(
        DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x",
        RABBITMQ_URL="amqp://me:secret@127.0.0.1:1",
        OLLAMA_HOST="127.0.0.1:1",
    )
    assert code == 1
    for name in ("Postgres", "RabbitMQ", "Ollama"):
        assert found[name]["verdict"] == "fail"
        assert found[name]["remedy"]
        assert "127.0.0.1:1" in found[name]["text"]
    assert "secret" not in json.dumps(found)


def test_the_table_fits_80_columns_and_shows_the_remedies() -> None:
    done = millrace("doctor", "--port", str(free_port()), OLLAMA_HOST="127.0.0.1:1")
    assert done.returncode == 1
    assert "→ Run `ollama serve`, or set OLLAMA_HOST." in done.stdout
    assert "1 problem to mend." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_empty_database_is_to_be_migrated_and_then_fine(database_url: str) -> None:
    code, found = answered(DATABASE_URL=database_url)
    assert code == 1
    assert found["Postgres"]["verdict"] == "ok"
    assert found["pgvector"]["verdict"] == "ok"
    assert found["Schema"]["verdict"] == "fail"
    assert found["Schema"]["remedy"] == "Run `millrace migrate`."
    assert millrace("migrate", DATABASE_URL=database_url).returncode == 0
    code, found = answered(DATABASE_URL=database_url)
    assert code == 0
    assert found["Schema"]["verdict"] == "ok"
    assert "installed" in found["pgvector"]["text"]


async def test_queues_are_compared_with_the_topology(rabbitmq_url: str) -> None:
    code, found = answered(RABBITMQ_URL=rabbitmq_url)
    assert code == 0
    assert found["RabbitMQ"]["verdict"] == "ok"
    assert found["RabbitMQ"]["text"][0].isdigit()
    assert "6 of 6 not declared yet" in found["Queues"]["text"]

    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        for queue in (*topology.SHARED, topology.subtasks("extractive")):
            await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments()))
        code, found = answered(RABBITMQ_URL=rabbitmq_url)
        assert code == 0
        assert found["Queues"]["text"] == "all 6 as they should be"

        await channel.queue_delete("results")
        await channel.declare_queue("results", durable=True)
        code, found = answered(RABBITMQ_URL=rabbitmq_url)
        assert code == 1
        assert found["Queues"]["text"] == "declared with other arguments: results"
        assert found["Queues"]["remedy"]


async def test_looking_at_queues_makes_none(rabbitmq_url: str) -> None:
    findings(RABBITMQ_URL=rabbitmq_url)
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue("results", passive=True)


def test_a_refused_login_is_a_finding(rabbitmq_url: str) -> None:
    code, found = findings(RABBITMQ_URL=rabbitmq_url.replace("guest:guest", "guest:wrong"))
    assert code == 1
    assert found["RabbitMQ"]["verdict"] == "fail"


def test_missing_models_are_named_with_the_command_that_gets_them() -> None:
    with ollama("llama3.2:3b", "nomic-embed-text:latest", "codellama:34b-instruct") as host:
        code, found = answered(OLLAMA_HOST=host, MILLRACE_MODELS=CLUSTER)
    assert code == 0
    assert found["Ollama"]["verdict"] == "warn"
    assert found["Ollama"]["text"] == f"0.12.6 at {host}, without codellama:70b-instruct"
    assert found["Ollama"]["remedy"] == "Run `ollama pull codellama:70b-instruct`."


def test_an_ollama_with_every_model_is_fine() -> None:
    names = ("llama3.2:3b", "nomic-embed-text:latest", "codellama:34b-instruct")
    with ollama(*names, "codellama:70b-instruct") as host:
        _, found = answered(OLLAMA_HOST=host, MILLRACE_MODELS=CLUSTER)
    assert found["Ollama"]["verdict"] == "ok"


def test_something_that_never_answers_costs_three_seconds_at_most() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        code, found = findings(
            DATABASE_URL=f"postgresql://{where}/x",
            RABBITMQ_URL=f"amqp://{where}",
            OLLAMA_HOST=where,
        )
    assert code == 1
    assert {found[name]["verdict"] for name in ("Postgres", "RabbitMQ", "Ollama")} == {"fail"}


def test_a_taken_port_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, found = findings(MILLRACE_PORT=port)
    assert code == 0
    assert found[f"Port {port}"]["verdict"] == "warn"


def test_a_broken_registry_is_a_finding_and_the_rest_is_checked(tmp_path: Any) -> None:
    (tmp_path / "m.yaml").write_text("models: 1\n")
    code, found = findings(MILLRACE_MODELS=str(tmp_path / "m.yaml"))
    assert code == 1
    assert found["Models"]["verdict"] == "fail"
    assert "m.yaml:1: models: must be a list" in found["Models"]["text"]
    assert found["Python"]["verdict"] == "ok"


def test_a_model_that_may_outlast_the_brokers_patience_is_a_warning(
    rabbitmq_url: str, tmp_path: Any
) -> None:
    file = tmp_path / "m.yaml"
    verdicts = []
    for timeout in (600, 3000):
        model = f"{{name: slow, provider: scripted, timeout_seconds: {timeout}}}"
        file.write_text(f"models:\n- {model}\n")
        code, found = answered(RABBITMQ_URL=rabbitmq_url, MILLRACE_MODELS=str(file))
        assert code == 0
        patience = found["Consumer timeout"]
        assert f"slow may take {timeout} s" in patience["text"]
        verdicts.append(patience["verdict"])
    version = found["RabbitMQ"]["text"].split(" ")[0]
    node_wide = tuple(int(n) for n in version.split(".")[:2]) < (3, 12)
    assert verdicts == ["ok", "warn" if node_wide else "ok"]
    if node_wide:
        assert patience["remedy"] == "Set `consumer_timeout = 4200000` in rabbitmq.conf."
