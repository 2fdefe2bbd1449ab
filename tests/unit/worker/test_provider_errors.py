"""Every exception of the engine libraries is mapped once; a new one in an upgrade fails here."""

import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType

import httpx
import httpx2
import ollama
import openai
import pytest

from queue_schemas.messages import ErrorKind
from worker.providers import ollama as ollama_provider
from worker.providers import openai as openai_provider
from worker.providers.diagnosis import Diagnosis, diagnose, failure

MISUSE = {"CookieConflict", "StreamError", "StreamConsumed", "StreamClosed", "ResponseNotRead",
          "RequestNotRead"}  # fmt: skip
"""Raised for a wrong use of httpx by ourselves: those are bugs, reported as `internal_error`."""


def exceptions_of(module: ModuleType) -> Iterator[type[Exception]]:
    for name, found in inspect.getmembers(module, inspect.isclass):
        public = not name.startswith("_") and name not in MISUSE
        if public and issubclass(found, Exception) and not issubclass(found, Warning):
            yield found


@pytest.mark.parametrize(
    ("table", "module"),
    [
        (ollama_provider.ERRORS, ollama),
        (ollama_provider.ERRORS, httpx),
        (openai_provider.ERRORS, openai),
        (openai_provider.ERRORS, httpx2),
    ],
    ids=["ollama", "httpx", "openai", "httpx2"],
)
def test_every_exception_of_the_library_is_mapped(
    table: Mapping[type[Exception], Diagnosis | None], module: ModuleType
) -> None:
    found = list(exceptions_of(module))

    assert len(found) >= 2
    assert [kind.__name__ for kind in found if kind not in table] == []


def test_a_subclass_is_judged_by_its_nearest_mapped_ancestor() -> None:
    class NewTimeout(httpx.ReadTimeout):
        pass

    error = ollama_provider.mapped(NewTimeout("slow"))

    assert (error.kind, error.code) == (ErrorKind.TRANSIENT, "engine_timeout")


def test_retry_after_is_passed_on() -> None:
    response = httpx2.Response(
        429, headers={"Retry-After": "7"}, request=httpx2.Request("POST", "http://engine")
    )

    error = openai_provider.mapped(openai.RateLimitError("slow down", response=response, body=None))

    assert (error.code, error.retry_after_seconds) == ("engine_busy", 7.0)


def test_an_exhausted_quota_is_not_worth_a_retry() -> None:
    response = httpx2.Response(429, request=httpx2.Request("POST", "http://engine"))
    body = {"code": "insufficient_quota"}

    error = openai_provider.mapped(openai.RateLimitError("pay", response=response, body=body))

    assert (error.kind, error.code) == (ErrorKind.PERMANENT, "engine_quota_exceeded")


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "model_not_found"), (418, "bad_request"), (429, "engine_busy"), (599, "engine_error"),
     (None, "engine_error")],
)  # fmt: skip
def test_a_status_decides_where_the_words_say_nothing(status: int | None, code: str) -> None:
    assert diagnose("hm", status)[1] == code


def test_a_whole_page_of_an_error_is_cut() -> None:
    error = failure((ErrorKind.TRANSIENT, "engine_error"), "x" * 100_000)

    assert len(error.message) == 2000
