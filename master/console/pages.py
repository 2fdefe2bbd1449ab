"""Pages and parts of pages, from templates."""

from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from master.console import filters
from master.console.assets import static
from master.console.viewer import Viewer


class Entry(NamedTuple):
    """A page of the navigation."""

    path: str
    label: str


NAV = (
    Entry("/console", "Overview"),
    Entry("/console/requests", "Requests"),
    Entry("/console/playground", "Playground"),
    Entry("/console/documents", "Documents"),
    Entry("/console/search", "Search"),
    Entry("/console/rules", "Rules"),
    Entry("/console/feedback", "Feedback"),
    Entry("/console/workers", "Workers"),
    Entry("/console/dead", "Dead letters"),
    Entry("/console/usage", "Keys and usage"),
)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("master.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "when": filters.when,
        "ago": filters.distance,
        "seconds": filters.seconds,
        "number": filters.number,
        "bytes": filters.bytes_,
        "money": filters.money,
    }
    environment.globals |= {"static": static, "nav": NAV, "release": version("millrace")}
    return environment


def page(
    request: Request,
    viewer: Viewer | None,
    template: str,
    /,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """A whole page. Without a viewer it has no navigation."""
    return HTMLResponse(whole(template, **(_frame(request, viewer) | values)), status_code=status)


def whole(template: str, /, **values: Any) -> str:
    """All of a template as text."""
    return _environment().get_template(template).render(_with_parts(values))


def fragment(
    request: Request, viewer: Viewer, template: str, block: str, /, **values: Any
) -> HTMLResponse:
    """One block of a template, for htmx to swap in."""
    return HTMLResponse(_block(template, block, _frame(request, viewer) | values))


def rendered(template: str, block: str, /, **values: Any) -> str:
    """One block of a template as text, for `live`: the same for all who look.

    Neither `viewer` nor `csrf` are in it, because they would be those of somebody else.
    """
    return _block(template, block, values)


def _block(template: str, block: str, values: dict[str, Any]) -> str:
    found = _environment().get_template(template)
    context = found.new_context(_with_parts(values))
    return "".join(found.blocks[block](context))


def _with_parts(values: dict[str, Any]) -> dict[str, Any]:
    """And the macros of parts.html, for whole pages and single blocks alike."""
    macros = _environment().get_template("parts.html").make_module(values)
    return {**values, "parts": macros}


def _frame(request: Request, viewer: Viewer | None) -> dict[str, Any]:
    return {
        "viewer": viewer,
        "csrf": viewer.csrf if viewer else "",
        "path": request.url.path,
        "here": _here(request.url.path),
    }


def _here(path: str) -> str:
    """The page of the navigation that a path belongs to."""
    below = [entry.path for entry in NAV if f"{path}/".startswith(f"{entry.path}/")]
    return max(below, key=len, default="")
