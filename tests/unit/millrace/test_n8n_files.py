"""From the environment to what n8n is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from millrace import n8n_files
from millrace.problems import Problem

SET = {
    "MILLRACE_N8N_DATABASE_URL": "postgresql://n8n:p%40ss@db.example:6432/mill?sslmode=require",
    "RABBITMQ_URL": "amqps://carrier:w%2Ford@mq.example/mill",
    "MILLRACE_N8N_WEBHOOK_KEY": "0123456789abcdef",
    "MILLRACE_URL": "https://mill.example/v1/",
    "MILLRACE_API_KEY": "mr-key",
}


def made(**more: str) -> dict[str, dict[str, Any]]:
    return {each["type"]: each["data"] for each in n8n_files.credentials({**SET, **more})}


def test_addresses_are_taken_apart_and_unquoted() -> None:
    found = made()
    assert found["postgres"] == {
        "host": "db.example",
        "port": 6432,
        "database": "mill",
        "user": "n8n",
        "password": "p@ss",
        "ssl": "require",
        "maxConnections": 5,
    }
    assert found["rabbitmq"] == {
        "hostname": "mq.example",
        "port": 5671,
        "username": "carrier",
        "password": "w/ord",
        "vhost": "mill",
        "ssl": True,
    }


def test_n8n_may_have_a_way_of_its_own_to_the_broker() -> None:
    found = made(MILLRACE_N8N_RABBITMQ_URL="amqp://other:5673")["rabbitmq"]
    assert (found["hostname"], found["port"], found["vhost"]) == ("other", 5673, "/")


def test_keys_go_to_their_own_hosts_only() -> None:
    found = made(MILLRACE_OPENWEBUI_URL="http://chat:8080", MILLRACE_OPENWEBUI_API_KEY="sk-1")
    assert found["httpBearerAuth"]["allowedDomains"] == "mill.example"
    assert found["httpCustomAuth"]["allowedDomains"] == "chat"
    assert found["httpHeaderAuth"]["allowedHttpRequestDomains"] == "none"


def test_each_type_is_there_once_so_that_an_overwrite_can_tell_them_apart() -> None:
    credentials = n8n_files.credentials(SET)
    assert len({each["type"] for each in credentials}) == len(credentials)
    overwritten = json.loads(n8n_files.overwrite(credentials))
    assert "httpCustomAuth" not in overwritten  # no Open WebUI: it stays blank
    assert overwritten["httpBearerAuth"]["token"] == "mr-key"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MILLRACE_N8N_WEBHOOK_KEY": ""}, "MILLRACE_N8N_WEBHOOK_KEY is not set"),
        ({"MILLRACE_N8N_WEBHOOK_KEY": "short"}, "16 characters"),
        ({"MILLRACE_API_KEY": " "}, "millrace keys create"),
        ({"MILLRACE_N8N_DATABASE_URL": ""}, "CREATE USER n8n IN ROLE millrace_n8n"),
        ({"MILLRACE_N8N_DATABASE_URL": "mysql://x"}, "postgresql://"),
        ({"MILLRACE_N8N_DATABASE_URL": "postgresql://h:no/x"}, "not a URL"),
        ({"MILLRACE_N8N_DATABASE_URL": "postgresql://h/x?sslmode=odd"}, "sslmode"),
        ({"RABBITMQ_URL": ""}, "RABBITMQ_URL is not set"),
        ({"RABBITMQ_URL": "http://mq"}, "amqps://"),
        ({"MILLRACE_URL": "mill.example"}, "http://"),
        ({"MILLRACE_N8N_ALERT_URL": "file:///etc/passwd"}, "http://"),
    ],
    ids=[
        "no webhook key",
        "short webhook key",
        "no api key",
        "no database",
        "other database",
        "no port",
        "odd sslmode",
        "no broker",
        "other broker",
        "no scheme",
        "a file",
    ],
)
def test_what_is_missing_or_wrong_is_named(change: dict[str, str], said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        made(**change)
    assert "p%40ss" not in str(caught.value)


def test_settings_are_filled_in_and_what_is_not_set_stays() -> None:
    addresses = n8n_files.settings({**SET, "MILLRACE_N8N_ALERT_URL": "https://a.example/x/"})
    flows = {f["id"]: f for f in n8n_files.workflows(n8n_files.WORKFLOWS, addresses)}

    def filled(flow: str) -> dict[str, Any]:
        return {each["name"]: each["value"] for each in n8n_files.assignments(flows[flow])}

    assert filled("mrErrorHandling") == {
        "master_url": "https://mill.example",
        "alert_url": "https://a.example/x/",
    }
    assert filled("mrFeedbackCollect") == {"openwebui_url": ""}
    assert filled("mrActivityWatch")["least_ended"] == 10


def test_the_workflow_for_errors_is_published_before_those_that_name_it() -> None:
    flows = n8n_files.workflows(n8n_files.WORKFLOWS, {})
    commands = n8n_files.commands("n8n", flows, "C", "W")
    assert commands[:3] == [
        "n8n import:credentials --input=C",
        "n8n import:workflow --separate --input=W",
        "n8n publish:workflow --id=mrErrorHandling",
    ]
    assert len(commands) == 2 + len(flows)


def test_a_folder_without_workflows_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="--workflows"):
        n8n_files.workflows(tmp_path, {})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(Problem, match=r"broken\.json cannot be read"):
        n8n_files.workflows(tmp_path, {})
