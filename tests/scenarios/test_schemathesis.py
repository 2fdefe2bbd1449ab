"""The API does what its own OpenAPI document says, whatever is sent (a real installation)."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as openapi

# Here and not when it is first needed: the import reads syntax trees, which Python 3.11 does not
# do well while another thread does so too.
from schemathesis.specs.openapi.schemas import OpenApiSchema

from millrace.chaos.stack import Stack
from tests.scenarios.conftest import MakeStack

MODEL = {
    "name": "mill",
    "provider": "scripted",
    "slots": 8,
    "options": {"text": "The mill turns."},
}
CHECKS: list[Any] = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
    openapi.negative_data_rejection,
    openapi.ignored_auth,
    openapi.unsupported_method,
]

ENTANGLED = {"n", "tool_choice", "tools", "top_logprobs", "response_format", "metadata"}
"""What is valid only together with something else, or more narrowly than a schema can say."""
STEADILY = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    made = make_stack(MODEL)
    asyncio.run(made.start(mill=1))
    return made


@pytest.fixture
def document(stack: Stack) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{stack.url}/openapi.json")


def made_answerable(case: Any) -> None:
    """Made-up models and conversations are nearly all refused; some chats should be answered."""
    if isinstance(case.body, dict):
        plain = {name: value for name, value in case.body.items() if name not in ENTANGLED}
        case.body = plain | {"model": "mill", "messages": [{"role": "user", "content": "Why?"}]}


@pytest.mark.timeout(240)
def test_every_answer_is_one_that_the_document_promises(document: Any, stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.key}"}
    failures: list[str] = []
    answered: Counter[tuple[str, int]] = Counter()
    operations = [result.ok() for result in document.get_all_operations()]
    for operation in operations:
        for mode in GenerationMode:

            @STEADILY
            @given(case=operation.as_strategy(generation_mode=mode))
            def probe(case: Any) -> None:
                if case.meta.generation.mode is GenerationMode.POSITIVE:
                    made_answerable(case)
                answer = case.call(headers=headers, timeout=60)
                answered[case.operation.label, answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS, headers=headers)

            with suppress(Unsatisfiable):  # nothing can be wrong with an operation without input
                try:
                    probe()
                except FailureGroup as group:
                    failures += [f"{operation.label}: {each}" for each in group.exceptions]
                except Failure as failure:
                    failures.append(f"{operation.label}: {failure}")
    assert not failures, "\n\n".join(failures)
    assert len(operations) >= 9
    for label in ("POST /v1/chat/completions", "GET /v1/models", "GET /ready"):
        assert answered[label, 200], f"{label} was never answered: {answered}"
    assert answered["POST /v1/chat/completions", 400]


async def test_the_document_has_no_answer_that_never_comes(make_stack: MakeStack) -> None:
    stack = make_stack(MODEL)
    await stack.start(mill=1)
    document = await stack.get("/openapi.json")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            assert bool(operation.get("security")) == path.startswith("/v1/"), path
            for status, response in operation["responses"].items():
                if status == "204":
                    continue
                assert response["content"], (path, status)
                if status >= "400" and path != "/ready":
                    envelope = response["content"]["application/json"]["schema"]
                    assert envelope == {"$ref": "#/components/schemas/ErrorEnvelope"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
