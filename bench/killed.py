"""Row 7: a worker is killed in the middle of an answer, and the text flows again."""

import time

from bench.effort import Effort
from bench.samples import Findings, Limit, Row, percentile
from bench.site import Millrace
from bench.talk import Silence, Talk

_WORDS = 60
MODEL = {"provider": "openai", "engine_model": f"{_WORDS}x25", "slots": 4, "max_workers": 2}
_BEFORE = 10
"""Words that the client has when the worker dies; the next one generates them again."""
_WITHIN_SECONDS = 10.0


def killed(mill: Millrace, effort: Effort) -> Findings:
    """Seconds from SIGKILL to the next new word; the answer must be whole, with no word twice."""
    silences = tuple(_kill(mill) for _ in range(effort.kills))
    worst = max(silences)
    row = Row(
        *("7", "worker killed, text flows again", "s", silences),
        judged=(worst,),
        limit=Limit(2, at_least=False),
    )
    note = (
        f"killed: {len(silences)} kills, p50 {percentile(silences, 50):.2f} s, "
        f"longest {worst:.2f} s, of which {_BEFORE * 0.025:.2f} s generate the shown words again"
    )
    return Findings((row,), notes=(note,))


def _kill(mill: Millrace) -> float:
    with Talk(mill.target(_WORDS)) as talk:
        talk.read_until(_BEFORE)
        name = _worker_of(mill, talk.request)
        victim = next(worker for worker in mill.workers if worker.name == name)
        victim.kill()
        heard_at = killed_at = time.monotonic()
        silence, flows_at = 0.0, killed_at
        while not talk.is_whole:
            words = talk.words
            at = talk.read()
            if talk.words > words:
                # What was on its way comes first; the silence is behind it.
                if at - heard_at > silence:
                    silence, flows_at = at - heard_at, at
                heard_at = at
        if talk.words != _WORDS:
            raise Silence(f"{talk.words} words instead of {_WORDS} after a kill")
    mill.workers.remove(victim)
    mill.add_workers(1)
    return flows_at - killed_at


def _worker_of(mill: Millrace, request: str) -> str:
    """Who executes the request; the claim is written a moment after the first words."""
    end = time.monotonic() + _WITHIN_SECONDS
    while time.monotonic() < end:
        (subtask,) = mill.get(f"/v1/requests/{request}")["subtasks"]
        if subtask["worker"]:
            return str(subtask["worker"])
        time.sleep(0.01)
    raise Silence(f"nobody has claimed {request}")
