"""Taking out of texts what must not be kept: a built-in way, and hooks of one's own."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from millrace.problems import Problem, one_line, reason

Redact = Callable[[str], str]

BASIC: Final = "basic"
_AS_THEY_ARE: Final = frozenset(
    {"role", "type", "id", "tool_call_id", "request", "asked_at", "kind", "rater", "subject"}
    | {"source", "step", "strategy"}
)
"""Fields whose words are ours or the protocol's, and no texts."""

# Each begins where the character before it cannot belong to it, so that long texts take one pass.
_EMAIL: Final = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_IBAN: Final = re.compile(
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"
    r"|\b[a-z]{2}\d{2}(?: ?\d{4}){3,7}(?: ?\d{1,3})?\b"
)
_DATE: Final = r"(?!\d{1,2}[/-]\d{1,2}[/-]\d{2,4}(?!\d))"
_PHONE: Final = re.compile(
    r"(?<![\w+])\+\d{1,3}(?:[ ()/.-]{0,2}\d){6,13}(?!\w)"
    rf"|(?<![\w.+/-]){_DATE}\(?0\d{{1,5}}\)?(?:[ /-]{{0,2}}\d){{5,11}}(?!\w)"
    r"|(?<![\w.+/-])\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?!\w)"
)
_NUMBER: Final = re.compile(
    r"(?<![\w.])\d{4}(?:[ -]\d{4}){3}(?!\w)|(?<![\w.])\d{4}[ -]\d{6}[ -]\d{5}(?!\w)"
    r"|(?<![\d.])\d{7,}"
)
_MASKS: Final = ((_EMAIL, "[email]"), (_IBAN, "[iban]"), (_PHONE, "[phone]"), (_NUMBER, "[number]"))


def basic(text: str) -> str:
    """Mask e-mail addresses, IBANs, phone numbers and long runs of digits."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def load(name: str) -> Redact:
    """`basic`, or the function that `module:function` names. Raises `Problem`."""
    if name == BASIC:
        return basic
    module, _, function = name.partition(":")
    if not module or not function:
        raise Problem(f"--redact takes {BASIC} or module:function, not {one_line(name)!r}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise Problem(f"--redact {name} cannot be loaded: {reason(error)}.") from error
    if not callable(found):
        raise Problem(f"--redact {name} is not a function.")
    return _checked(name, found)


def _checked(name: str, function: Callable[[str], object]) -> Redact:
    def redact(text: str) -> str:
        try:
            made = function(text)
        except Exception as error:
            why = f"{type(error).__name__}: {reason(error)}"
            raise Problem(f"--redact {name} failed ({why}). Nothing was written.") from error
        if not isinstance(made, str):
            raise Problem(f"--redact {name} did not return a text. Nothing was written.")
        return made

    return redact


def redacted(value: Any, redact: Sequence[Redact]) -> Any:
    """A record with every text in it redacted, however deep."""
    if isinstance(value, str):
        for each in redact:
            value = each(value)
        return value
    if isinstance(value, Mapping):
        return {
            name: inner if name in _AS_THEY_ARE else redacted(inner, redact)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, redact) for inner in value]
    return value
