from pathlib import Path

import pytest

from millrace import models_file
from millrace.models_file import ModelsFileError
from queue_schemas.registry import Capability, Registry

ROOT = Path(__file__).parents[3]


def parse(text: str, **environment: str) -> Registry:
    return models_file.parse(text, "m.yaml", environment)


GOOD = """\
models:
  - name: small
    provider: ollama
    slots: 2
"""

BROKEN = {
    "empty": ("", "m.yaml: the file is empty; it needs a list `models:`"),
    "only a comment": ("# nothing\n", "m.yaml: the file is empty; it needs a list `models:`"),
    "not a mapping": ("- a\n", "m.yaml:1: must be a mapping of `key: value` lines"),
    "no models": ("models: []\n", "m.yaml:1: models: needs at least one model"),
    "models missing": ("currency: EUR\n", "m.yaml:1: models: is missing"),
    "models not a list": ("\nmodels: llama\n", "m.yaml:2: models: must be a list"),
    "entry not a mapping": (
        "models:\n  - llama3\n",
        "m.yaml:2: models[0]: must be a mapping of `key: value` lines",
    ),
    "tab": (
        "models:\n\t- name: a\n",
        "m.yaml:2: found character '\\t' that cannot start any token",
    ),
    "unclosed": ("models: [a\n", "m.yaml:2: expected ',' or ']', but got '<stream end>'"),
    "control character": (
        "models:\n  - name: a\x00b\n",
        "m.yaml:2: a character that YAML does not",
    ),
    "two documents": ("a: 1\n---\nb: 2\n", "m.yaml:2: but found another document"),
    "digits that are missing": ("\nmodels: 0b_", "m.yaml:2: this cannot be read as int"),
    "another tag's value": ("models: !!bool x", "m.yaml:1: this cannot be read as bool"),
    "a date that is none": ("models: !!timestamp x", "m.yaml:1: this cannot be read as timestamp"),
    "more digits than a number has": (
        f"models: {'9' * 5000}",
        "m.yaml:1: this cannot be read as int",
    ),
    "a number that nobody can count": (
        f"models: 0x{'f' * 5000}",
        "m.yaml:1: a number of more than 64 bits",
    ),
    "brackets without end": ("[" * 3000, "m.yaml:1: nested too deeply"),
    "aliases of aliases": (
        "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
        + "".join(f"x{n}: &x{n} [{f'*x{n - 1}, ' * 10}]\n" for n in range(1, 9)),
        "m.yaml:1: aliases make more than 500,000 values of it",
    ),
    "a first word after the last one": (
        "models:\n  - name: a\n    provider: ollama\n    first_token_seconds: 1.0e+300",
        "m.yaml:4: models[0].first_token_seconds: must be less than or equal to 3600",
    ),
    "duplicate key": (
        GOOD + "    slots: 4\n",
        "m.yaml:5: the key 'slots' was given before, on line 4",
    ),
    "contains itself": ("models: &a\n  - *a\n", "this value contains itself"),
    "unsafe tag": ("models: !!python/object:os.system {}\n", "m.yaml:1: could not determine a"),
    "unknown key": (
        GOOD + "    context_lenght: 4096\n",
        "m.yaml:5: models[0].context_lenght: unknown key; did you mean 'context_length'?",
    ),
    "unknown top key": (
        GOOD + "curency: EUR\n",
        "m.yaml:5: curency: unknown key; did you mean 'currency'?",
    ),
    "unknown role": (
        GOOD + "roles:\n  planner: small\n",
        "m.yaml:6: roles.planner: unknown key; did you mean 'plan'?",
    ),
    "unknown price key": (
        GOOD + "    price:\n      promt: 1\n",
        "m.yaml:6: models[0].price.promt: unknown key; did you mean 'prompt'?",
    ),
    "nothing near": (GOOD + "    zzz: 1\n", "m.yaml:5: models[0].zzz: unknown key"),
    "missing provider": ("models:\n  - name: a\n", "m.yaml:2: models[0].provider: is missing"),
    "provider misspelt": (
        "models:\n  - name: a\n    provider: olama\n",
        "m.yaml:3: models[0].provider: 'olama' is not one of 'ollama', 'openai', 'extractive', "
        "'scripted', 'sentence-transformers' or 'embedder'; did you mean 'ollama'?",
    ),
    "out of range": (
        GOOD + "    context_length: 12\n",
        "m.yaml:5: models[0].context_length: must be greater than or equal to 256",
    ),
    "yes is no number": (
        "models:\n  - name: a\n    provider: ollama\n    slots: yes\n",
        "m.yaml:4: models[0].slots: True is not a number",
    ),
    "text is no number": (
        GOOD + '    price: {prompt: "1"}\n',
        "m.yaml:5: models[0].price.prompt: '1' is not a number",
    ),
    "not a number": (
        GOOD + "    timeout_seconds: .nan\n",
        "m.yaml:5: models[0].timeout_seconds: must be a finite number",
    ),
    "number for text": (
        GOOD + "    keep_alive: -1\n",
        "m.yaml:5: models[0].keep_alive: write it in quotes, as text: '-1'",
    ),
    "date for text": (
        "models:\n  - name: 2026-01-01\n    provider: olama\n",
        "m.yaml:3: models[0].provider: 'olama'",
    ),
    "reserved name": (
        "models:\n  - provider: ollama\n    name: millrace/x\n",
        "m.yaml:3: models[0].name: names that begin with 'millrace/' are strategies",
    ),
    "unknown key of a fallback": (
        GOOD + "    fallbacks:\n      - provider: openai\n        endpont: http://x\n",
        "m.yaml:7: models[0].fallbacks[0].endpont: unknown key; did you mean 'endpoint'?",
    ),
    "endpoint of a fallback": (
        GOOD + "    fallbacks:\n      - provider: openai\n        endpoint: ftp://x\n",
        "m.yaml:7: models[0].fallbacks[0].endpoint: 'ftp://x' is not an http:// or https:// ",
    ),
    "fallbacks that are no list": (
        GOOD + "    fallbacks: ollama\n",
        "m.yaml:5: models[0].fallbacks: must be a list",
    ),
    "inconsistent entry": (
        GOOD + "    min_workers: 3\n",
        "m.yaml:2: models[0]: min_workers is larger than max_workers",
    ),
    "same name twice": (
        GOOD + "  - name: small\n    provider: openai\n    slug: b\n",
        "m.yaml:5: two models have the name 'small'",
    ),
    "same slug twice": (
        "models:\n  - {name: a/b, provider: ollama}\n  - {name: 'a:b', provider: ollama}\n",
        "m.yaml:3: two models have the slug 'a-b'",
    ),
    "role of no model": (
        GOOD + "roles:\n  plan: large\n",
        "m.yaml:6: roles.plan names 'large', which is not a model",
    ),
    "strategy misspelt": (
        GOOD + "auto: [direct, spilt]\n",
        "m.yaml:5: auto[1]: 'spilt' is not one of 'direct', 'split', 'rag', 'router', 'crew' or "
        "'ensemble'; did you mean 'split'?",
    ),
    "strategies without direct": (GOOD + "auto: [split]\n", "m.yaml:5: auto: needs direct, for"),
    "strategies that are no list": (GOOD + "auto: direct\n", "m.yaml:5: auto: must be a list"),
    "endpoint without variable": (
        GOOD + "    endpoint: ${NOWHERE}\n",
        "m.yaml:5: models[0].endpoint: the environment variable NOWHERE is not set; "
        "set it or write ${NOWHERE:-a default}",
    ),
    "endpoint of another kind": (
        GOOD + "    endpoint: ftp://x\n",
        "m.yaml:5: models[0].endpoint: 'ftp://x' is not an http:// or https:// address",
    ),
    "endpoint without scheme": (
        "models:\n  - name: a\n    provider: openai\n    endpoint: gpu:8000\n",
        "m.yaml:4: models[0].endpoint: 'gpu:8000' is not an http:// or https:// address",
    ),
    "endpoint with a silly port": (
        GOOD + "    endpoint: http://gpu:99999\n",
        "m.yaml:5: models[0].endpoint: Port out of range",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_names_line_and_field(text: str, message: str) -> None:
    with pytest.raises(ModelsFileError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_problem_is_listed_in_the_order_of_the_file() -> None:
    text = GOOD + "    slot: 1\n  - name: 'two words'\n    provider: ollama\n"
    with pytest.raises(ModelsFileError) as caught:
        parse(text)
    lines = [problem.split(": ")[0] for problem in caught.value.problems]
    assert lines == ["m.yaml:5", "m.yaml:6"]
    assert str(caught.value).endswith("(and 1 more)")


def test_merged_defaults_are_read_and_their_errors_found() -> None:
    text = """\
models:
  - &small
    name: a
    provider: ollama
    slots: 3
  - <<: *small
    name: b
"""
    assert [(m.name, m.slots) for m in parse(text).models] == [("a", 3), ("b", 3)]
    with pytest.raises(ModelsFileError, match=r"m\.yaml:7: models\[1\]\.name"):
        parse(text.replace("name: b", "name: 'b c'"))


def test_a_date_as_a_name_stays_text() -> None:
    assert (
        parse("models:\n  - {name: 2026-01-01, provider: ollama}\n").models[0].name == "2026-01-01"
    )


ENDPOINTS = [
    ("ollama", "${OLLAMA_HOST:-http://127.0.0.1:11434}", {}, "http://127.0.0.1:11434"),
    ("ollama", "${OLLAMA_HOST:-x}", {"OLLAMA_HOST": "gpu-1"}, "http://gpu-1:11434"),
    ("ollama", "${OLLAMA_HOST:-x}", {"OLLAMA_HOST": ""}, "http://x:11434"),
    ("ollama", "${OLLAMA_HOST}", {"OLLAMA_HOST": "0.0.0.0:7"}, "http://127.0.0.1:7"),
    ("ollama", "https://gpu.example", {}, "https://gpu.example:443"),
    ("ollama", "http://[::1]:9", {}, "http://[::1]:9"),
    ("openai", "http://${HOST}:${PORT:-80}/v1", {"HOST": "gpu"}, "http://gpu:80/v1"),
    ("openai", "${NONE:-}", {}, None),
]


@pytest.mark.parametrize(("provider", "template", "environment", "expected"), ENDPOINTS)
def test_endpoints_take_variables_from_the_environment(
    provider: str, template: str, environment: dict[str, str], expected: str | None
) -> None:
    text = f"models:\n  - name: a\n    provider: {provider}\n    endpoint: '{template}'\n"
    assert parse(text, **environment).models[0].endpoint == expected


def test_endpoints_of_fallbacks_do_so_too() -> None:
    text = (
        GOOD
        + "    fallbacks:\n      - {provider: ollama, endpoint: '${GPU:-gpu-2}', engine_model: b}\n"
    )
    assert parse(text, GPU="gpu-1").models[0].fallbacks[0].endpoint == "http://gpu-1:11434"
    assert parse(text).models[0].fallbacks[0].endpoint == "http://gpu-2:11434"


def test_nothing_but_the_endpoint_is_expanded() -> None:
    text = GOOD + "    options: {system: '${HOME}'}\n"
    assert parse(text, HOME="x").models[0].options == {"system": "${HOME}"}


@pytest.mark.parametrize("path", [ROOT / "models.yaml", models_file.ONE_MACHINE])
def test_the_files_we_ship_are_valid(path: Path) -> None:
    assert models_file.load(path, {}).models


def test_the_cluster_example_has_the_promised_models() -> None:
    registry = models_file.load(ROOT / "models.yaml", {})
    names = {model.name for model in registry.models}
    assert {"codellama:34b-instruct", "codellama:70b-instruct"} <= names
    assert any(Capability.EMBEDDING in model.capabilities for model in registry.models)


def test_unreadable_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"models: caf\xe9\n")
    for name, message in [
        ("none.yaml", "no such file"),
        ("latin.yaml", "not UTF-8 text (byte 11)"),
        (".", "is a directory"),
    ]:
        with pytest.raises(ModelsFileError) as caught:
            models_file.load(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert models_file.load(path).models[0].slots == 2


def test_the_file_is_chosen_by_option_then_environment_then_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert models_file.default_path(None, {}) == models_file.ONE_MACHINE
    (tmp_path / "models.yaml").write_text(GOOD)
    assert models_file.default_path(None, {}) == Path("models.yaml")
    assert models_file.default_path(None, {"MILLRACE_MODELS": "x.yaml"}) == Path("x.yaml")
    assert models_file.default_path(Path("o.yaml"), {"MILLRACE_MODELS": "x"}) == Path("o.yaml")
