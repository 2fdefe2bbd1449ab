"""How values read on a page. Pure."""

from datetime import UTC, datetime
from math import isfinite

from markupsafe import Markup

NONE = "\N{EN DASH}"
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_LARGE = 1000


def when(moment: datetime | None) -> Markup | str:
    """A moment as a `<time>`: how long ago, and the exact time in UTC as its title."""
    if moment is None:
        return NONE
    at = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"),
        at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        distance((datetime.now(UTC) - at).total_seconds()),
    )


def distance(elapsed: float) -> str:
    """`just now`, `3 min ago`, `in 2 h`."""
    if abs(elapsed) < 2:
        return "just now"
    length = seconds(float(round(abs(elapsed))))
    return f"{length} ago" if elapsed > 0 else f"in {length}"


def seconds(value: float | None) -> str:
    """A duration: `4 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d`."""
    if value is None or not isfinite(value):
        return NONE
    if value < 9.95:
        return _short(value)
    whole = round(value)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < 2 * _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return f"{whole // _DAY} d"


def _short(value: float) -> str:
    if 0 < value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s".replace(".0 ", " ")


def _two(whole: int, unit: int, name: str, smaller: int, smaller_name: str) -> str:
    rest = whole % unit // smaller
    return f"{whole // unit} {name}" + (f" {rest} {smaller_name}" if rest else "")


def number(value: float | None) -> str:
    """A count in groups of three: `12 345`; fractions keep two digits at most."""
    if value is None or not isfinite(value):
        return NONE
    text = f"{value:z,.2f}".rstrip("0").removesuffix(".")
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def bytes_(value: float | None) -> str:
    """A size: `812 B`, `3.4 MB`."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < _LARGE or unit == "GB":
            break
        value /= _LARGE
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def money(value: float | None) -> str:
    """An amount, with more digits the smaller it is."""
    if value is None:
        return NONE
    if 0 < value < 0.0001:
        return "< 0.0001"
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.4f}"
