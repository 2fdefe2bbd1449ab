"""`python -m bench`: measure everything and print the ratios."""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import (
    chats,
    console,
    fairness,
    killed,
    observing,
    report,
    retrieval_ingest,
    retrieval_search,
    split,
    stops,
    strategies,
    streams,
    subtasks,
)
from bench.effort import FULL, QUICK, Effort
from bench.samples import Findings
from bench.site import PEERS, Millrace, Servers, litellm, millrace, servers
from millrace.chaos.machine import Unavailable

_BEGAN = time.monotonic()
_WITH_PEERS = ("first-token", "chats", "subtasks")
_ALONE = ("split", "stop", "fair", "killed", "streams", "strategies")
_RETRIEVAL = ("search", "ingest")
_CONSOLE = "console"
_OBSERVING = "observing"
NAMES = (*_WITH_PEERS, *_ALONE, *_RETRIEVAL, _CONSOLE, _OBSERVING)

Measure = Callable[[Millrace, Effort], Findings]


def main() -> int:
    """Run the benchmark; 0 whatever the numbers say, for they are findings and no test."""
    options = _options()
    effort = QUICK if options.quick else FULL
    wanted = [name for name in NAMES if name in (options.only or NAMES)]
    if set(wanted) & set(_WITH_PEERS) and not (PEERS / "litellm").exists():
        print("bench: the peers are not installed. Run `make bench`.", file=sys.stderr)
        return 1
    machine = report.machine()
    folder = Path(tempfile.mkdtemp(prefix="millrace-bench-"))
    try:
        findings = _measure(wanted, effort, folder)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except BaseException:
        print(f"bench: the logs are in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    report.show(findings, machine)
    if options.json:
        report.write(options.json, findings, effort, machine)
    _say("done")
    return 0


def _measure(wanted: list[str], effort: Effort, folder: Path) -> list[Findings]:
    findings: list[Findings] = []
    with servers(folder) as all_:
        if {"first-token", "chats"} & set(wanted):
            findings += _chats(all_, wanted, effort)
        if "subtasks" in wanted:
            _say("subtasks")
            with millrace(all_, subtasks.MODEL) as mill:
                findings.append(subtasks.subtasks(all_, mill, effort))
        for name, (model, workers, measure) in _alone(effort).items():
            if name in wanted:
                _say(name)
                with millrace(all_, model, workers=workers) as mill:
                    findings.append(measure(mill, effort))
        for name, measure in _retrieval().items():
            if name in wanted:
                _say(name)
                with millrace(all_, chats.MODEL, workers=0, more=retrieval_search.MODELS) as mill:
                    findings.append(measure(mill, effort))
        if _CONSOLE in wanted:
            _say(_CONSOLE)
            with millrace(all_, console.MODEL, more=console.MORE) as mill:
                findings.append(console.console(mill, effort))
        if _OBSERVING in wanted:
            _say(_OBSERVING)
            findings.append(observing.observing(all_, effort))
    return findings


def _retrieval() -> dict[str, Measure]:
    """What needs an embedding model, and no worker."""
    return {"search": retrieval_search.search, "ingest": retrieval_ingest.ingest}


def _alone(effort: Effort) -> dict[str, tuple[Mapping[str, object], int, Measure]]:
    """What is measured without a peer: the model, its workers, and the measurement."""
    return {
        "split": (split.model(effort.workers), effort.workers, split.split),
        "stop": (stops.MODEL, 1, stops.stops),
        "fair": (fairness.MODEL, 1, fairness.fairness),
        "killed": (killed.MODEL, 2, killed.killed),
        "streams": (streams.model(effort.streams), streams.WORKERS, streams.streams),
        "strategies": (strategies.MODEL, 1, strategies.strategies),
    }


def _chats(all_: Servers, wanted: list[str], effort: Effort) -> list[Findings]:
    _say("starting Millrace and LiteLLM")
    found: list[Findings] = []
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(litellm(all_, chats.SCRIPT))
        mill = stack.enter_context(millrace(all_, chats.MODEL))
        proxy.wait()
        measures: dict[str, Callable[[], Findings]] = {
            "first-token": lambda: chats.first_token(mill, proxy, effort),
            "chats": lambda: chats.throughput(mill, {"LiteLLM": proxy}, effort),
        }
        for name, measure in measures.items():
            if name in wanted:
                _say(name)
                found.append(measure())
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, with fewer rounds and sizes")
    parser.add_argument("--only", action="append", choices=NAMES, help="one of the measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    return parser.parse_args()


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:4.0f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
