"""Where master and worker spend their CPU time under the load of rows 2 and 3.

    python -m bench.profiling chats|subtasks|splits [ANSWERS]

Three lists for each process, in milliseconds of CPU time for one answer: by package, by the
function that was running, and by functions of Millrace with all that they called. Inside of
SQLAlchemy the callers are not seen, because it runs in greenlets.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import chats, subtasks
from bench.load import Order, Target, run
from bench.processes import Started
from bench.site import Millrace, Servers, millrace, servers

_TOP = 30
_CLIENTS = 16
_OURS = ("bus", "db", "master", "millrace", "queue_schemas", "worker")
_MODELS: Mapping[str, Mapping[str, Any]] = {
    "chats": chats.MODEL,
    "subtasks": subtasks.MODEL,
    "splits": subtasks.MODEL,
}


def main(what: str, answers: int) -> None:
    """Run one load on sampled processes and print the lists."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-profile-"))
    with servers(folder, profile=True) as all_:
        processes = _load(all_, what, answers)
    for process in processes:
        _show(process.name, json.loads((folder / f"{process.name}.samples").read_text()), answers)
    shutil.rmtree(folder, ignore_errors=True)


def _load(all_: Servers, what: str, answers: int) -> tuple[Started, ...]:
    with millrace(all_, _MODELS[what]) as mill:
        target, processes = _target(mill, what), (mill.master, *mill.workers)
        run(Order((target,), _CLIENTS, 4))
        for process in processes:
            os.kill(process.pid, signal.SIGUSR1)
        load = run(Order((target,), _CLIENTS, answers // _CLIENTS))
    print(f"{what}: {load.per_second:.0f} answers per second while sampled")
    return processes


def _target(mill: Millrace, what: str) -> Target:
    if what == "chats":
        return mill.target(chats.CHUNKS)
    if what == "splits":
        return mill.target(subtasks.PARTS, {**subtasks.SPLIT_BODY, "stream": False})
    return mill.target(1, {"stream": False})


def _show(name: str, samples: Mapping[str, Any], answers: int) -> None:
    own: dict[str, int] = samples["own"]
    # Kernels round the interval up to their tick, so a sample stands for more than was asked.
    each = 1000 * samples["seconds"] / sum(own.values()) / answers
    packages: Counter[str] = Counter()
    for function, number in own.items():
        packages[_package(function)] += number
    ours = {name: n for name, n in samples["within"].items() if name.startswith(_OURS)}
    print(f"\n{name}: {1000 * samples['seconds'] / answers:.3f} ms of CPU time an answer")
    for title, found in (("by package", packages), ("running", own), ("ours, with calls", ours)):
        print(f"  {title}")
        for function, number in sorted(found.items(), key=lambda pair: -pair[1])[:_TOP]:
            print(f"    {each * number:6.3f}  {function}")


def _package(function: str) -> str:
    parts = function.partition(":")[0].split("/")
    return "/".join(parts[:2]) if parts[0] == "stdlib" else parts[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 960)
