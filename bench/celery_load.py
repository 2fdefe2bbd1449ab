"""Celery's client: sends subtasks from several threads and waits for every result.

Runs in the peers' environment and prints one line of JSON.

    python -m bench.celery_load SUBTASKS THREADS
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
from celery.result import AsyncResult

from bench.celery_app import answer, app

_MESSAGES = [{"role": "user", "content": "Why does the wheel of a mill go round?"}]
_SECONDS = 120
_POLL_SECONDS = 0.02


def main(subtasks: int, threads: int) -> dict[str, float]:
    """Seconds from the first send to the last result, and what the client computed."""

    wait = _wait_for_messages if app.conf.result_backend.startswith("rpc") else _wait_for_rows

    def send_and_wait(number: int) -> int:
        return wait([answer.delay(_MESSAGES) for _ in range(number)])

    send_and_wait(1)  # connects, and knows that a worker is there
    shares = [subtasks // threads] * threads
    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        right = sum(pool.map(send_and_wait, shares))
    seconds = time.perf_counter() - began
    assert right == sum(shares), f"{right} of {sum(shares)} results were right"
    return {"subtasks": right, "seconds": seconds, "cpu_seconds": time.process_time() - cpu}


def _wait_for_messages(sent: list[AsyncResult]) -> int:
    return sum(result.get(timeout=_SECONDS)["text"] == "turns" for result in sent)


def _wait_for_rows(sent: list[AsyncResult]) -> int:
    """Celery's own way asks for one result after the other, which costs more than the work."""
    query = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS' AND task_id = ANY(%s)"
    ids, end, found = [result.id for result in sent], time.monotonic() + _SECONDS, 0
    url = app.conf.result_backend.removeprefix("db+").replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        while found < len(ids) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            # Other results' table appears with the first one.
            if connection.execute("SELECT to_regclass('celery_taskmeta')").fetchone() != (None,):
                ((found,),) = connection.execute(query, (ids,)).fetchall()
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
