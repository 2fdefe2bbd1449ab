"""The API reference: what it says of an OpenAPI document, and that it needs nothing else."""

import re
from typing import Annotated, Literal

import httpx2
import pytest
from fastapi import Body, FastAPI
from pydantic import BaseModel, Field

from master.api import errors
from master.console import docs
from master.console.reference import Operation, in_words, reference, short, type_of


class Stone(BaseModel):
    """What grinds; <b>hard</b>."""

    grit: Literal["coarse", "fine"] = "fine"
    weight: float | None = Field(None, gt=0, description="In `kg`.")


class Mill(BaseModel):
    """Where it grinds."""

    name: str = Field(max_length=20)
    stones: list[Stone]


def application() -> FastAPI:
    app = FastAPI(title="A mill", docs_url=None, redoc_url=None)

    @app.post("/mills/{place}", tags=["Mills"], responses={404: {"description": "No `river`"}})
    def build(place: int, mill: Annotated[Mill, Body()], dry: bool = False) -> Mill:
        """Build one, <i>there</i>."""
        return mill

    errors.install(app)
    return app


def told() -> Operation:
    [operation] = reference(application().openapi()).tags["Mills"]
    return operation


def test_an_operation_has_its_parameters_bodies_and_answers() -> None:
    found = told()
    assert (found.method, found.path, found.anchor) == (
        "POST",
        "/mills/{place}",
        "post-mills-place",
    )
    assert found.words == "Build one, &lt;i&gt;there&lt;/i&gt;."
    assert [(each.name, each.place, each.required) for each in found.parameters] == [
        ("place", "path", True),
        ("dry", "query", False),
    ]
    [body] = found.body
    assert [(each.name, each.required) for each in body.fields] == [
        ("name", True),
        ("stones", True),
    ]
    assert body.fields[0].bounds == "at most 20 long"
    assert [(piece.text, piece.href) for piece in body.fields[1].type] == [
        ("list of ", ""),
        ("Stone", "#schema-Stone"),
    ]
    assert [each.status for each in found.answers] == ["200"]
    missing = found.errors[0]
    assert (missing.status, missing.words) == ("404", "No <code>river</code>")


def test_every_schema_is_there_with_its_fields() -> None:
    found = {each.name: each for each in reference(application().openapi()).schemas}
    grit, weight = found["Stone"].fields
    assert "".join(piece.text for piece in grit.type) == '"coarse" | "fine"'
    assert grit.bounds == "default <code>&#34;fine&#34;</code>"
    assert (weight.words, weight.bounds) == ("In <code>kg</code>.", "more than 0")
    assert "<b>" not in found["Stone"].words


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "anything"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"const": 1}, "1"),
        ({"type": "string", "format": "uuid"}, "string (uuid)"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"oneOf": [{"type": "string"}, {"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"$ref": "#/components/schemas/a__b___Tool"}, "Tool"),
    ],
)
def test_types_are_told_in_words(schema: dict[str, object], words: str) -> None:
    assert "".join(piece.text for piece in type_of(schema)) == words


def test_names_lose_their_modules_only() -> None:
    assert [short(key) for key in ("Stone", "_Text", "a__b__Kind")] == ["Stone", "Text", "Kind"]
    assert in_words(None) == ""


@pytest.mark.parametrize("console", [True, False])
async def test_the_page_loads_its_own_files_and_runs_no_script(console: bool) -> None:
    app = application()
    docs.install(app, console=console)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://mill") as http:
        page = await http.get("/docs")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert not re.search(r"""(?:href|src)=["'](?!/|#)""", page.text)
        anchors = set(re.findall(r'\bid="([^"]+)"', page.text))
        assert anchors >= set(re.findall(r'href="#([^"]+)"', page.text))
        addresses = re.findall(r'<link[^>]* href="([^"]+)"', page.text)
        assert len(addresses) == 3
        for address in addresses:
            found = await http.get(address)
            assert found.status_code == 200
            assert "immutable" in found.headers["cache-control"]
        assert (await http.get("/docs/static/console.js")).status_code == 404
        assert (await http.head("/docs")).status_code == 200
        assert "/docs" not in (await http.get("/openapi.json")).json()["paths"]
