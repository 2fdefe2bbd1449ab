"""Spans of time as people write them: `90s`, `15m`, `12h`, `7d`."""

import re

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> float:
    """The span in seconds. Raises what typer shows as a wrong option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time: write 90s, 15m, 12h or 7d")
    return float(found[1]) * _UNITS[found[2]]
