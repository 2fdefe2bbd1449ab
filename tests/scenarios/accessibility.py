"""Whether people can use a page who do not see it well, or use no mouse; what Chromium computes.

Names and roles are those of the browser's accessibility tree, as a screen reader gets them.
"""

from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

_SCRIPT: Final = Path(__file__).with_suffix(".js").read_text("utf-8")
_NAMED: Final = frozenset(
    {
        "button",
        "checkbox",
        "combobox",
        "dialog",
        "img",
        "image",
        "link",
        "listbox",
        "meter",
        "progressbar",
        "radio",
        "searchbox",
        "slider",
        "spinbutton",
        "switch",
        "tab",
        "textbox",
        "graphics-document",
        "navigation",
        "region",
    }
)


async def faults(page: Page) -> list[str]:
    """What is wrong with names, structure and landmarks."""
    found: list[str] = await page.evaluate(_call("structure"))
    return found + await _nameless(page)


async def faint(page: Page) -> list[str]:
    """Texts that differ too little from what is behind them (WCAG 1.4.3)."""
    found: list[str] = await page.evaluate(_call("contrast"))
    return found


async def overflow(page: Page) -> list[str]:
    """What makes the page wider than its window."""
    found: list[str] = await page.evaluate(_call("overflow"))
    return found


def _call(function: str) -> str:
    return f"(() => {{ {_SCRIPT}\nreturn {function}(); }})()"


async def _nameless(page: Page) -> list[str]:
    session = await page.context.new_cdp_session(page)
    try:
        tree = await session.send("Accessibility.getFullAXTree")
    finally:
        await session.detach()
    return [
        f"a {_said(node, 'role')} without a name" for node in tree["nodes"] if _is_nameless(node)
    ]


def _is_nameless(node: dict[str, Any]) -> bool:
    named = _said(node, "role") in _NAMED and not node.get("ignored")
    return named and not _said(node, "name").strip()


def _said(node: dict[str, Any], what: str) -> str:
    return str(node.get(what, {}).get("value", ""))
