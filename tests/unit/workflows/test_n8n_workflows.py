"""The workflows for n8n are whole: checked without n8n, which checks little at import."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db.migrate import head
from master.learning.proposals import REMEDIES
from millrace.n8n_files import ERROR_WORKFLOW, WORKFLOWS
from queue_schemas import topology

FILES = sorted(WORKFLOWS.glob("*.json"))
FLOWS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text("utf-8")) for file in FILES
}
every_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
Node = dict[str, Any]

KNOWN = {
    "code": 2,
    "errorTrigger": 1,
    "httpRequest": 4.2,
    "if": 2.3,
    "manualTrigger": 1,
    "noOp": 1,
    "postgres": 2.7,
    "rabbitmq": 1.2,
    "rabbitmqTrigger": 1,
    "respondToWebhook": 1.5,
    "scheduleTrigger": 1.4,
    "set": 3.4,
    "stopAndError": 1,
    "webhook": 2.1,
}
"""Types and versions that the n8n of `make test-n8n` has; import and publish check neither."""
TRIGGERS = {"errorTrigger", "manualTrigger", "rabbitmqTrigger", "scheduleTrigger", "webhook"}
CREDENTIALS = {
    "postgres": ("mrPostgres", "Millrace Postgres"),
    "rabbitmq": ("mrRabbitmq", "Millrace RabbitMQ"),
    "httpHeaderAuth": ("mrWebhook", "Millrace webhook"),
    "httpBearerAuth": ("mrApi", "Millrace API"),
    "httpCustomAuth": ("mrOpenWebui", "Open WebUI"),
}
SECRET = re.compile(
    r"(?i)(password|passwd|secret|token|api[_-]?key)[\"']?\s*[:=]\s*[\"'][^\"'{$]{6,}"
    r"|\b(sk|mr|ghp|xox[bp])-[A-Za-z0-9_-]{8,}|Bearer [A-Za-z0-9]|://[^/\s:@]+:[^/\s:@]+@"
)


def kind(node: Node) -> str:
    return str(node["type"]).removeprefix("n8n-nodes-base.")


def nodes(*kinds: str) -> list[tuple[dict[str, Any], Node]]:
    return [
        (flow, node) for flow in FLOWS.values() for node in flow["nodes"] if kind(node) in kinds
    ]


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def targets(flow: dict[str, Any], source: str) -> list[str]:
    outputs = flow["connections"].get(source, {}).get("main", [])
    return [target["node"] for output in outputs for target in output]


def scripts(flow: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """JavaScript by where it is: of Code nodes, and of what stands in `{{ }}`."""
    for node in flow["nodes"]:
        for text in texts(node["parameters"]):
            if kind(node) == "code" and text == node["parameters"].get("jsCode"):
                yield node["name"], f"(async function () {{\n{text}\n}});"
            elif text.startswith("="):
                for inside in re.findall(r"\{\{(.*?)\}\}(?!\})", text, re.DOTALL):
                    yield node["name"], f"(async function () {{ return (\n{inside}\n); }});"


def test_there_are_the_five() -> None:
    assert set(FLOWS) == {
        "activity-watch",
        "error-handling",
        "feedback-collect",
        "rules-update",
        "weekly-report",
    }
    ids = [flow["id"] for flow in FLOWS.values()]
    assert len(set(ids)) == len(ids)
    assert all(len(each) <= 21 for each in ids)


@every_flow
def test_node_types_versions_and_names_are_known(flow: dict[str, Any]) -> None:
    for node in flow["nodes"]:
        assert KNOWN[kind(node)] == node["typeVersion"], node["name"]
    for field in ("name", "id"):
        assert Counter(node[field] for node in flow["nodes"]).most_common(1)[0][1] == 1


@every_flow
def test_connections_lead_from_a_trigger_to_every_node(flow: dict[str, Any]) -> None:
    names = {node["name"] for node in flow["nodes"]}
    reached = {node["name"] for node in flow["nodes"] if kind(node) in TRIGGERS}
    assert set(flow["connections"]) <= names
    waiting = list(reached)
    while waiting:
        for target in targets(flow, waiting.pop()):
            assert target in names
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    assert reached == names


@every_flow
def test_a_node_that_is_asked_for_its_items_exists(flow: dict[str, Any]) -> None:
    names = {node["name"] for node in flow["nodes"]}
    for node in flow["nodes"]:
        for text in texts(node["parameters"]):
            assert set(re.findall(r"\$\('([^']+)'\)", text)) <= names, node["name"]


@every_flow
def test_scripts_are_javascript(flow: dict[str, Any], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine to check the workflows' JavaScript with")
    found = list(scripts(flow))
    file = tmp_path / "scripts.js"
    file.write_text("\n".join(f"// {name}\n{script}" for name, script in found), "utf-8")
    done = subprocess.run([node, "--check", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(found) >= 3


@every_flow
def test_code_catches_what_goes_wrong(flow: dict[str, Any]) -> None:
    for node in flow["nodes"]:
        if kind(node) == "code":
            assert "catch (error)" in node["parameters"]["jsCode"], node["name"]


@every_flow
def test_it_is_imported_asleep_and_failures_are_told(flow: dict[str, Any]) -> None:
    settings = flow["settings"]
    assert flow["active"] is False
    assert (settings["executionOrder"], settings["timezone"]) == ("v1", "UTC")
    wanted = None if flow["id"] == ERROR_WORKFLOW else ERROR_WORKFLOW
    assert settings.get("errorWorkflow") == wanted
    assert flow["pinData"] == {}


def test_failures_have_a_workflow_that_starts_with_them() -> None:
    [(flow, _)] = nodes("errorTrigger")
    assert flow["id"] == ERROR_WORKFLOW


@every_flow
def test_what_runs_by_the_clock_can_be_run_by_hand(flow: dict[str, Any]) -> None:
    begins = {
        kind(node): set(targets(flow, node["name"]))
        for node in flow["nodes"]
        if kind(node) in {"scheduleTrigger", "manualTrigger"}
    }
    assert begins["scheduleTrigger"] == begins["manualTrigger"]
    # `n8n execute` begins at the first node that it can begin at, an error trigger among them.
    assert kind(flow["nodes"][0]) == "manualTrigger"


# --- secrets -------------------------------------------------------------------------------------


@every_flow
def test_no_text_looks_like_a_secret(flow: dict[str, Any]) -> None:
    for text in texts(flow):
        assert not SECRET.search(text), text


@pytest.mark.parametrize(
    "text",
    ['{"password": "hunter22"}', "Bearer abc", "mr-4fQz81Xwabc", "amqp://guest:guest@host"],
    ids=["password", "bearer", "key", "url"],
)
def test_a_secret_would_be_seen(text: str) -> None:
    assert SECRET.search(text)


@every_flow
def test_credentials_are_named_and_only_ours(flow: dict[str, Any]) -> None:
    for node in flow["nodes"]:
        for type_, credential in node.get("credentials", {}).items():
            assert (credential["id"], credential["name"]) == CREDENTIALS[type_], node["name"]


def test_nodes_that_need_a_credential_have_one() -> None:
    for _, node in nodes("postgres", "rabbitmq", "rabbitmqTrigger"):
        assert set(node["credentials"]) == {kind(node).removesuffix("Trigger")}
    for _, node in nodes("httpRequest"):
        wanted = node["parameters"].get("genericAuthType")
        assert set(node.get("credentials", {})) == ({wanted} if wanted else set()), node["name"]


def test_every_webhook_asks_who_calls() -> None:
    ways = set()
    for _, node in nodes("webhook"):
        parameters = node["parameters"]
        assert parameters["authentication"] == "headerAuth"
        assert set(node["credentials"]) == {"httpHeaderAuth"}
        assert re.fullmatch(r"[0-9a-f-]{36}", node["webhookId"])
        assert ":" not in parameters["path"]
        ways.add((parameters["httpMethod"], parameters["path"]))
    assert len(ways) == len(nodes("webhook")) > 0


# --- RabbitMQ ------------------------------------------------------------------------------------


def test_events_are_acknowledged_when_they_are_counted() -> None:
    for _, node in nodes("rabbitmqTrigger"):
        options = node["parameters"]["options"]
        assert node["parameters"]["queue"] == topology.N8N.name
        assert options["acknowledge"] == "executionFinishes"
        assert 1 <= options["parallelMessages"] <= 50
        assert not options["jsonParseBody"]


def test_what_is_sent_is_kept_and_goes_where_somebody_reads() -> None:
    for _, node in nodes("rabbitmq"):
        parameters = node["parameters"]
        pairs = {a["key"]: a["value"] for a in parameters["options"]["arguments"]["argument"]}
        assert pairs["persistent"] == "true"
        assert parameters["mode"] == "queue"
        assert parameters["queue"] in {topology.FEEDBACK.name, topology.N8N.name}


def test_feedback_is_stored_before_anybody_is_told() -> None:
    flow = FLOWS["feedback-collect"]
    senders = [node["name"] for node in flow["nodes"] if kind(node) == "rabbitmq"]
    for sender in senders:
        [before] = [name for name in flow["connections"] if sender in targets(flow, name)]
        [stores] = [name for name in flow["connections"] if before in targets(flow, name)]
        query = next(n["parameters"]["query"] for n in flow["nodes"] if n["name"] == stores)
        assert "millrace.take_feedback(" in query


# --- SQL -----------------------------------------------------------------------------------------


def test_statements_only_call_functions_that_n8n_may_call() -> None:
    versions = Path(head.__code__.co_filename).parent / "migrations" / "versions"
    granted = (versions / "0008_rollups.py").read_text() + (versions / "0012_n8n.py").read_text()
    for _, node in nodes("postgres"):
        query = node["parameters"]["query"]
        assert node["parameters"]["operation"] == "executeQuery"
        assert query.startswith("SELECT "), node["name"]
        assert not re.search(
            r"(?i)\b(insert|update|delete|drop|alter|grant)\b", re.sub("'[^']*'", "", query)
        )
        for name in re.findall(r"millrace\.(\w+)", query):
            assert f"CREATE FUNCTION millrace.{name}(" in granted
            assert re.search(rf"millrace\.{name}\b(?!\()", query) is None, "no table is read"


def test_values_are_bound_in_one_list_and_never_written_into_statements() -> None:
    for _, node in nodes("postgres"):
        query, options = node["parameters"]["query"], node["parameters"]["options"]
        assert "{{" not in query
        wanted = {int(number) for number in re.findall(r"\$(\d+)", query)}
        given = options.get("queryReplacement", "")
        assert given == "" if not wanted else re.fullmatch(r"=\{\{ \[.+\] \}\}", given)
        assert wanted == set(range(1, len(wanted) + 1))


def test_calls_over_http_end_and_follow_nobody() -> None:
    for _, node in nodes("httpRequest"):
        options = node["parameters"]["options"]
        assert 0 < options["timeout"] <= 60_000
        assert options["redirect"]["redirect"]["followRedirects"] is False


def test_n8n_proposes_what_millrace_itself_would_propose() -> None:
    [code] = [
        node["parameters"]["jsCode"]
        for node in FLOWS["rules-update"]["nodes"]
        if node["name"] == "Draft proposals"
    ]
    told = {
        name: json.loads(text)
        for name, text in re.findall(r'^  (\w+): (".*"),$', code, re.MULTILINE)
    }
    assert told == REMEDIES


# --- the n8n of `make test-n8n` ------------------------------------------------------------------


def test_what_is_installed_is_locked_with_hashes_and_without_addresses() -> None:
    runtime = WORKFLOWS / "runtime"
    wanted = json.loads((runtime / "package.json").read_text("utf-8"))["dependencies"]
    packages = json.loads((runtime / "package-lock.json").read_text("utf-8"))["packages"]
    locked = {name: package for name, package in packages.items() if name}
    assert locked["node_modules/n8n"]["version"] == wanted["n8n"]
    assert not [name for name, package in locked.items() if "resolved" in package]
    assert not [name for name, package in locked.items() if "integrity" not in package]
