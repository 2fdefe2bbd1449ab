"""What a run of chaos came to, in numbers. Pure."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from millrace.chaos.evidence import Evidence
from millrace.chaos.faults import KINDS, NOTHING
from millrace.chaos.invariants import diverged


@dataclass(frozen=True)
class Options:
    """What a run is to be like. The same options make the same schedule and the same questions."""

    seed: int
    seconds: float = 60.0
    masters: int = 2
    workers: int = 4
    clients: int = 8
    kinds: tuple[str, ...] = tuple(KINDS)

    def command(self) -> str:
        """The command that does this run again."""
        words = ["millrace", "chaos", "--seed", str(self.seed), "--seconds", f"{self.seconds:g}"]
        words += ["--masters", str(self.masters), "--workers", str(self.workers)]
        words += ["--clients", str(self.clients)]
        if set(self.kinds) != set(KINDS):
            words += ["--faults", ",".join(sorted(self.kinds))]
        return shlex.join(words)


@dataclass(frozen=True)
class Struck:
    """A fault that was injected."""

    at: float
    kind: str
    what: str
    seconds: float = 0.0


@dataclass
class Outcome:
    """Everything that a report says."""

    options: Options
    folder: Path
    struck: list[Struck] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Faults that could not be injected, and why."""
    violations: dict[str, dict[str, float]] = field(default_factory=dict)
    """By invariant: what was violated, and when it was seen first."""
    evidence: Evidence = field(default_factory=Evidence)
    restarts: int = 0
    quiet_seconds: float | None = None
    """From the last fault until everything was at rest; None when it never was."""
    interrupted: bool = False

    @property
    def broken(self) -> int:
        """How many violations there are."""
        return sum(len(found) for found in self.violations.values())

    @property
    def faults(self) -> Mapping[str, int]:
        """Injected faults by kind; those that found no victim do not count."""
        return Counter(struck.kind for struck in self.struck if struck.what != NOTHING)

    @property
    def states(self) -> Mapping[str, int]:
        """Requests by state."""
        return Counter(request.state for request in self.evidence.requests.values())

    @property
    def failures(self) -> Mapping[str, int]:
        """Failed requests by code."""
        requests = self.evidence.requests.values()
        return Counter(str(r.error) for r in requests if r.state == "failed")

    def note(self, found: Mapping[str, Sequence[str]], at: float) -> None:
        """Add violations that were seen now."""
        for name, texts in found.items():
            known = self.violations.setdefault(name, {})
            for text in texts:
                known.setdefault(text, round(at, 1))

    def numbers(self) -> dict[str, int | float | None]:
        """What happened besides."""
        visits, executions = self.evidence.visits, self.evidence.executions
        requests = self.evidence.requests
        whole = sorted(v.seconds for v in visits if v.seconds and v.state == "completed")
        first = sorted(v.first_text_seconds for v in visits if v.first_text_seconds)
        late = [e for e in executions if e.outcome == "completed" and not e.applied]
        each = Counter((e.subtask, e.attempt) for e in executions)
        return {
            "requests": len(self.evidence.requests),
            "refused_or_failed_connections": sum(visit.refusals for visit in visits),
            "resumed_streams": sum(max(0, len(visit.streams) - 1) for visit in visits),
            "clients_that_left": sum(visit.left for visit in visits),
            "process_restarts": self.restarts,
            "first_text_p50_seconds": percentile(first, 0.5),
            "first_text_p99_seconds": percentile(first, 0.99),
            "latency_p50_seconds": percentile(whole, 0.5),
            "latency_p99_seconds": percentile(whole, 0.99),
            "needless_redrives": self._needless(),
            "silent_workers_given_up": sum(self._was_redriven(e.subtask, e.attempt) for e in late),
            "stale_results_refused": len(late),
            "duplicate_executions": sum(times - 1 for times in each.values()),
            "diverged_answers": sum(diverged(v, requests.get(v.request or "")) for v in visits),
            "lost_workers": sum(s.losses for s in self.evidence.subtasks.values()),
            "quiet_after_seconds": self.quiet_seconds,
        }

    def _needless(self) -> int:
        """Subtasks that were taken back while they only waited in their queue."""
        reported = {(e.subtask, e.attempt) for e in self.evidence.executions}
        return sum(
            move.kind == "subtask"
            and (move.before, move.after) == ("queued", "ready")
            and (move.id, (move.attempt or 0) - 1) not in reported
            for move in self.evidence.moves
        )

    def _was_redriven(self, subtask: str, attempt: int) -> bool:
        """Whether a finished execution was given up although its result came in the end."""
        row = self.evidence.subtasks.get(subtask)
        return row is not None and row.losses > 0 and row.attempt > attempt


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which this share of the values lies."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 3)
