"""Static files and templates: what is foreign is as it came, and nothing needs inline code."""

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from itertools import product

import pytest

from master.console.assets import assets, static

VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
}
TEMPLATES = sorted(
    file.name for file in (files("master.console") / "templates").iterdir() if file.is_file()
)
TEXTS = ("text", "muted", "accent", "good", "warn", "bad")
LARGE_SHAPES = tuple(f"series-{number}" for number in range(1, 7))


@pytest.mark.parametrize("name", sorted(VENDORED))
def test_what_was_vendored_is_as_it_was_published(name: str) -> None:
    assert hashlib.sha256(assets()[name].content).hexdigest() == VENDORED[name]


def test_the_licence_and_the_version_of_what_was_vendored_lie_beside_it() -> None:
    said = assets()["htmx-LICENSE.txt"].content.decode()
    assert all(name in said for name in VENDORED)
    assert "4.0.1" in said
    assert "Zero-Clause BSD" in said
    assert b"4.0.1" in assets()["htmx.min.js"].content


def test_the_address_of_a_file_names_its_content() -> None:
    version = hashlib.sha256(assets()["console.css"].content).hexdigest()[:12]
    assert static("console.css") == f"/console/static/console.css?v={version}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_has_what_the_content_security_policy_forbids(name: str) -> None:
    text = (files("master.console") / "templates" / name).read_text()
    assert not re.search(r"\sstyle\s*=", text), "a style in an attribute"
    assert not re.search(r"<style\b", text)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", text), "an event handler in an attribute"
    assert not re.search(r"\bhx-on|\bhx-vals\s*=\s*[\"']js:|javascript:", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "a script in the page"
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", text), (
        "something from elsewhere"
    )


@pytest.mark.parametrize("name", [name for name in assets() if name.endswith(".css")])
def test_no_style_sheet_loads_anything(name: str) -> None:
    text = assets()[name].content.decode()
    assert "@import" not in text
    assert "url(" not in text


def test_texts_have_contrast_in_light_and_in_dark() -> None:
    for colours in (themes()[0], themes()[1]):
        for name, ground in product(TEXTS, ("bg", "panel", "raised")):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("good", "warn", "bad"):
            assert contrast(colours["text"], colours[f"{name}-soft"]) >= 4.5, name
        for name in LARGE_SHAPES:
            assert contrast(colours[name], colours["panel"]) >= 3, name
        assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_dark_by_choice_is_dark_by_preference() -> None:
    light, preferred, chosen = themes()
    assert preferred == chosen
    assert light.keys() >= preferred.keys()


def themes() -> list[Mapping[str, str]]:
    """Light, dark by preference, dark by choice: the colours of each."""
    css = assets()["console.css"].content.decode()
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", css)
    found = [dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})\b", block)) for block in blocks]
    return [colours for colours in found if "text" in colours]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
