"""Runs a `millrace` command and samples where its CPU time goes.

A timer counts the CPU time of the process and interrupts it every few milliseconds; waiting costs
nothing and is not seen. SIGUSR1 begins (imports are over by then); the samples are written at the
end. cProfile would slow small functions down and loses its way in SQLAlchemy's greenlets.

    python -m bench.sampler FILE master --port 8000
"""

import json
import signal
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

from millrace.cli import run

_EVERY_SECONDS = 0.004
_DEEPEST = 60
_HERE = f"{Path(__file__).parent.parent}/"

own: Counter[str] = Counter()
"""Samples by the function that was running."""
began: list[float] = []
within: Counter[str] = Counter()
"""Samples by every function on the stack, each once."""


def _sample(_: int, frame: FrameType | None) -> None:
    if frame is not None:
        own[_name(frame.f_code)] += 1
    seen: set[str] = set()
    while frame is not None and len(seen) < _DEEPEST:
        seen.add(_name(frame.f_code))
        frame = frame.f_back
    within.update(seen)


@cache
def _name(code: CodeType) -> str:
    file = code.co_filename
    if "site-packages/" in file:
        file = file.partition("site-packages/")[2]
    elif file.startswith(_HERE):
        file = file.removeprefix(_HERE)
    elif "/lib/python3" in file:
        file = "stdlib/" + file.partition("/lib/python3")[2].partition("/")[2]
    return f"{file}:{code.co_qualname}"


def _begin(*_: object) -> None:
    began.append(time.process_time())
    signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)


def main(file: Path, arguments: list[str]) -> int:
    """Run the command; write the samples."""
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, _begin)
    try:
        return run(arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began[0] if began else 0.0
        file.write_text(json.dumps({"seconds": seconds, "own": own, "within": within}))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
