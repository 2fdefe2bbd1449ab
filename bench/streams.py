"""Row 8: many open streams at once, each with a word a second."""

from bench.effort import Effort
from bench.load import Order, run
from bench.processes import peak_megabytes
from bench.samples import Findings, Limit, Row, cost, percentile
from bench.site import Meter, Millrace

WORKERS = 2
_WORDS = 40
_SPREAD_SECONDS = 20.0
"""They begin one after the other, and are all open for half of their time."""
_PAUSE_SECONDS = 1.0
_MEGABYTES = Limit(250, at_least=False)
_GAP = Limit(2, at_least=False)
"""Seconds: the engine's own pause, and as much again."""


def model(streams: int) -> dict[str, object]:
    """The registry entry: a slot for every stream."""
    return {
        "provider": "openai",
        "engine_model": f"{_WORDS}x{1000 * _PAUSE_SECONDS:.0f}",
        "slots": streams // WORKERS,
        "max_workers": WORKERS,
    }


def streams(mill: Millrace, effort: Effort) -> Findings:
    """The master's memory, and the longest silence of any stream; every answer must be whole."""
    number = effort.streams
    before = peak_megabytes(mill.master.pid)
    meter = Meter(mill.processes())
    load = run(Order((mill.target(_WORDS),), number, 1, spread=_SPREAD_SECONDS))
    spent = {**meter.spent(), "client": load.cpu_seconds}
    memory = (peak_megabytes(mill.master.pid),)
    gaps, firsts = load.gaps["millrace"], load.firsts["millrace"]
    longest = (max(gaps),)
    return Findings(
        (
            Row(
                "8", f"{number} open streams", "MB master", memory, judged=memory, limit=_MEGABYTES
            ),
            Row("8", f"{number} streams, longest gap", "s", longest, judged=longest, limit=_GAP),
        ),
        (cost(f"{number} streams", "Millrace", [{k: v / number for k, v in spent.items()}]),),
        (
            f"{number} streams: the master had {before:.0f} MB before; first words after "
            f"{percentile(firsts, 50):.1f} s p50, {max(firsts):.1f} s at most; longest gap of a "
            f"stream {percentile(gaps, 50):.2f} s p50, {percentile(gaps, 99):.2f} s p99",
        ),
    )
