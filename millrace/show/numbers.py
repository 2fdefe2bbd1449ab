"""Times, counts and prices for people."""

NONE = "-"


def seconds(value: float | None) -> str:
    """`320 ms`, `4.2 s`, `42 s`, `3m 05s`, `2h 13m`."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m"


def count(value: int | None) -> str:
    """`1,234`."""
    return NONE if value is None else f"{value:,}"


def plural(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def cost(value: float | None) -> str:
    """Four decimals while it is small, so that cheap answers do not all cost 0.00."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if value < 0.0001:
        return "<0.0001"
    return f"{value:.4f}" if value < 1 else f"{value:,.2f}"
