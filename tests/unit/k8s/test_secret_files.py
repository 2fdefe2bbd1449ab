import itertools
import json
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from master.api.keys import is_well_formed
from millrace import cli, n8n_files
from millrace.k8s import compose, env_files, secret_values, secrets
from millrace.k8s.definitions import USERS, definitions, is_hash_of
from millrace.k8s.problems import Unfit
from millrace.k8s.secret_values import NAMES, SLOTS, fill
from queue_schemas import topology
from queue_schemas.codec import KeyRing
from queue_schemas.registry import Model, Registry

ROOT = Path(__file__).parents[3]
REGISTRY = Registry.model_validate(
    {
        "models": [
            {"name": "small", "provider": "ollama"},
            {"name": "cloud", "provider": "openai", "api_key_env": "CLOUD_KEY"},
            {"name": "vectors", "provider": "ollama", "capabilities": ["embedding"]},
        ]
    }
)


def make(folder: Path, rotate: str | None = None) -> list[str]:
    prepared = secrets.prepare(folder, REGISTRY, rotate)
    secrets.write(folder, prepared)
    return [path.name for path in prepared.stale]


def values(folder: Path) -> dict[tuple[str, str], str]:
    return {
        (path.name, name): value
        for path in folder.glob("*.env")
        for name, value in env_files.parse(path.read_text(), path.name).items()
    }


def problems(folder: Path) -> list[str]:
    return secrets.problems(folder, REGISTRY, "Make them.")


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert len(make(folder)) == len({slot.file for slot in SLOTS}) + 2
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert make(folder) == []
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_they_are_strong_and_all_different(tmp_path: Path) -> None:
    make(tmp_path)
    found = fill(SLOTS, values(tmp_path)).secrets
    assert set(found) == set(NAMES)
    assert len(set(found.values())) == len(NAMES)
    assert all(len(value) >= 40 for value in found.values())


def test_what_reads_them_takes_them(tmp_path: Path) -> None:
    make(tmp_path)
    found = values(tmp_path)
    KeyRing.parse(found["queue-key.env", "MILLRACE_QUEUE_KEY"])
    assert is_well_formed(found["api-key.env", "MILLRACE_API_KEY"])
    assert found["open-webui.env", "OPENAI_API_KEY"] == found["api-key.env", "MILLRACE_API_KEY"]
    n8n = {
        name: value for (file, name), value in found.items() if file in {"n8n.env", "api-key.env"}
    }
    made = {each["id"]: each["data"] for each in n8n_files.credentials(n8n)}
    assert made["mrPostgres"]["host"] == "postgres"
    assert made["mrRabbitmq"]["vhost"] == "millrace"


def test_only_what_is_missing_is_added_and_comments_stay(tmp_path: Path) -> None:
    make(tmp_path)
    before = values(tmp_path)
    path = tmp_path / "postgres.env"
    kept = [line for line in path.read_text().splitlines() if "N8N" not in line]
    path.write_text("\n".join(["# mine", *kept, "MORE=1"]) + "\n")
    assert make(tmp_path) == ["postgres.env"]
    assert path.read_text().startswith("# mine\n")
    assert values(tmp_path) == {**before, ("postgres.env", "MORE"): "1"}


def test_a_database_of_ones_own_stays(tmp_path: Path) -> None:
    own = "postgresql://me:p%40ss@db.example:6543/postgres?sslmode=require"
    (tmp_path / "database.env").write_text(f"DATABASE_URL={own}\n")
    make(tmp_path)
    assert make(tmp_path, "database") == ["postgres.env"]
    assert values(tmp_path)["database.env", "DATABASE_URL"] == own
    assert problems(tmp_path) == [_NO_KEY.format(tmp_path)]


def test_a_broker_of_ones_own_stays_and_nothing_changes_for_it(tmp_path: Path) -> None:
    own = "amqps://me:secret@mq.example/vhost"
    (tmp_path / "broker-worker.env").write_text(f"RABBITMQ_URL={own}\n")
    make(tmp_path)
    assert make(tmp_path) == []
    assert values(tmp_path)["broker-worker.env", "RABBITMQ_URL"] == own


_NO_KEY = (
    "{}/engine-keys.env: CLOUD_KEY is empty. Write the key there that the engine of cloud wants, "
    "or take api_key_env out of models.yaml."
)


@pytest.mark.parametrize("name", NAMES)
def test_rotating_one_changes_it_everywhere_and_no_other(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    before, old = fill(SLOTS, values(tmp_path)).secrets, values(tmp_path)
    make(tmp_path, name)
    after, new = fill(SLOTS, values(tmp_path)).secrets, values(tmp_path)
    assert {each for each in NAMES if before[each] != after[each]} == {name}
    wanted = {(slot.file, slot.variable) for slot in SLOTS if name in slot.secrets}
    assert {place for place in old if old[place] != new[place]} == wanted
    assert problems(tmp_path) == [_NO_KEY.format(tmp_path)]
    assert secrets.after_rotation(name)


def test_the_queue_key_changes_in_three_steps(tmp_path: Path) -> None:
    make(tmp_path)

    def ring() -> str:
        return values(tmp_path)["queue-key.env", "MILLRACE_QUEUE_KEY"]

    old = ring()
    settings = [old]
    for _ in range(3):
        make(tmp_path, "queue-key")
        settings.append(ring())
    new = settings[-1]
    assert settings == [old, f"{old},{new}", f"{new},{old},{new}", new]
    for before, after in itertools.pairwise(settings):
        for writer, reader in ((before, after), (after, before)):
            KeyRing.parse(reader).verify(b"x", KeyRing.parse(writer).sign(b"x"))


def test_a_secret_that_does_not_exist_cannot_be_rotated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["k8s", "secrets", "--compose", "nowhere/.env", "--rotate", "brokerworker"]) == 1
    said = capsys.readouterr().err
    assert "there is no secret 'brokerworker'. Did you mean 'broker-worker'? There are:" in said
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("which", [[], ["--overlay", "a", "--compose", "b"]], ids=["none", "both"])
def test_secrets_are_made_for_one_of_two(which: Sequence[str]) -> None:
    assert cli.run(["k8s", "secrets", *which]) == 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "grafana.env").unlink()
    (tmp_path / "postgres.env").write_text("POSTGRES_PASSWORD=\n")
    (tmp_path / "engine-keys.env").write_text("CLOUD_KEY=k\n")
    (tmp_path / "database.env").write_text(
        "DATABASE_URL=postgresql://millrace:other@postgres:5432/millrace\n"
    )
    assert problems(tmp_path) == [
        f"{tmp_path}/grafana.env: no such file. Make them.",
        f"{tmp_path}/postgres.env: lacks POSTGRES_PASSWORD, MILLRACE_PASSWORD, N8N_PASSWORD. "
        "Make them.",
    ]


def test_two_passwords_for_one_user_are_noticed(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "engine-keys.env").write_text("CLOUD_KEY=k\n")
    (tmp_path / "database.env").write_text(
        "DATABASE_URL=postgresql://millrace:other@postgres:5432/millrace\n"
    )
    assert problems(tmp_path) == [
        f"{tmp_path}/database.env: DATABASE_URL has another password than MILLRACE_PASSWORD in "
        "postgres.env. Make them the same."
    ]


def test_keys_that_nobody_would_take_are_noticed(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "engine-keys.env").write_text("CLOUD_KEY=k\n")
    (tmp_path / "api-key.env").write_text("MILLRACE_API_KEY=sk-mine\n")
    (tmp_path / "queue-key.env").write_text("MILLRACE_QUEUE_KEY=short\n")
    assert problems(tmp_path) == [
        f"{tmp_path}/api-key.env: MILLRACE_API_KEY is no key of Millrace's. Empty it and make one.",
        f"{tmp_path}/queue-key.env: MILLRACE_QUEUE_KEY: each key needs 12 characters or more, "
        "separated by commas. Empty it and make one.",
    ]


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "grafana.env").write_text("# c\nGF_SECURITY_ADMIN_PASSWORD: x\n")
    with pytest.raises(Unfit, match=r"grafana\.env:2: this is not NAME=value"):
        make(tmp_path)
    assert problems(tmp_path) == [f"{tmp_path}/grafana.env:2: this is not NAME=value"]


def test_a_mark_of_byte_order_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n", "utf-8-sig")
    compose.write(path)
    assert path.read_text("utf-8").startswith("A=1\n")


def test_a_variable_that_is_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "grafana.env").write_text("A=1\nGF_SECURITY_ADMIN_PASSWORD=x\nA=2\n")
    assert problems(tmp_path) == [f"{tmp_path}/grafana.env:3: A was given before"]


def test_definitions_follow_the_models_and_the_passwords(tmp_path: Path) -> None:
    make(tmp_path)
    more = Registry(
        models=(*REGISTRY.models, Model.model_validate({"name": "n", "provider": "ollama"}))
    )
    prepared = secrets.prepare(tmp_path, more)
    assert [path.name for path in prepared.stale] == ["definitions.json"]
    before = json.loads((tmp_path / "definitions.json").read_text())
    after = json.loads(prepared.texts[tmp_path / "definitions.json"])
    assert before["users"] == after["users"]
    assert after["queues"][-1]["name"] == topology.subtasks("n").name


def test_no_password_is_in_the_definitions() -> None:
    passwords = {user: f"secret-{user}" for user in USERS}
    made = definitions(passwords, REGISTRY.models)
    assert "secret" not in made
    users = {user["name"]: user["password_hash"] for user in json.loads(made)["users"]}
    assert all(is_hash_of(passwords[name], users[name]) for name in USERS)
    assert not is_hash_of("other", users["worker"])
    assert not is_hash_of("other", "not base64!")
    assert definitions(passwords, REGISTRY.models, made) == made
    assert [queue["name"] for queue in json.loads(made)["queues"]] == [
        *(queue.name for queue in topology.SHARED),
        "subtasks.small",
        "subtasks.cloud",
    ]


@pytest.mark.parametrize(
    "before", ["", "[", "[]", '{"users": 3}', '{"users": [{"name": "worker"}]}']
)
def test_definitions_that_nobody_can_read_are_made_anew(before: str) -> None:
    assert json.loads(definitions({}, (), before))["users"]


def test_compose_gets_the_same_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# my settings\nCOMPOSE_PROFILES=cpu\n")
    assert len(compose.write(path).stale) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = env_files.parse(path.read_text(), ".env")
    assert found["COMPOSE_PROFILES"] == "cpu"
    assert found["MASTER_RABBITMQ_URL"].startswith("amqp://master:")
    assert found["MILLRACE_PASSWORD"] in found["DATABASE_URL"]
    users = json.loads((tmp_path / compose.DEFINITIONS).read_text())["users"]
    hashes = {user["name"]: user["password_hash"] for user in users}
    assert is_hash_of(found["RABBITMQ_ADMIN_PASSWORD"], hashes["admin"])
    assert compose.write(path).stale == []
    assert len(compose.write(path, "broker-admin").stale) == 2


@pytest.mark.parametrize("value", ['"quoted"', "'quoted'", "a$b", "a #b", "blank "])
def test_a_secret_that_compose_would_read_otherwise_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f'MINE="also $this"\nN8N_PASSWORD={value}\n')
    with pytest.raises(Unfit, match=r"N8N_PASSWORD: .*without quotes"):
        compose.write(path)
    assert not (tmp_path / compose.DEFINITIONS).exists()


def test_the_example_of_compose_names_all_of_them(tmp_path: Path) -> None:
    example = (ROOT / "compose" / "example.env").read_text("utf-8")
    assert compose.variables() <= env_files.parse(example, "example.env").keys()
    (tmp_path / ".env").write_text(example, "utf-8")
    compose.write(tmp_path / ".env")
    after = (tmp_path / ".env").read_text("utf-8")
    assert len(after.splitlines()) == len(example.splitlines())
    assert all(env_files.parse(after, ".env")[name] for name in compose.variables())


PASSWORD = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@settings(max_examples=50)
@given(PASSWORD)
def test_any_password_stands_in_a_url_as_it_must(password: str) -> None:
    have = {("postgres.env", "MILLRACE_PASSWORD"): password}
    filled = fill(SLOTS, have)
    url = filled.changed["database.env", "DATABASE_URL"]
    [slot] = [slot for slot in SLOTS if slot.variable == "DATABASE_URL"]
    assert slot.read(url) == {"database": password}
    assert secret_values.contradictions(SLOTS, {**have, **filled.changed}) == []


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["A=1", "B=", "# C=3", "", "D=x=y"]), unique=True), PASSWORD)
def test_setting_a_value_changes_no_other(lines: list[str], value: str) -> None:
    text = "\n".join(lines)
    after = env_files.parse(env_files.with_values(text, {"B": value}), "f")
    assert after == {**env_files.parse(text, "f"), "B": value}
