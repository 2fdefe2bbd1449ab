"""Celery's client: sends subtasks from several threads and waits for every result.

Runs in the peers' environment and prints one line of JSON.

    python -m bench.celery_load SUBTASKS THREADS
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from bench.celery_app import answer

_MESSAGES = [{"role": "user", "content": "Why does the wheel of a mill go round?"}]
_SECONDS = 120


def main(subtasks: int, threads: int) -> dict[str, float]:
    """Seconds from the first send to the last result, and what the client computed."""

    def send_and_wait(number: int) -> int:
        sent = [answer.delay(_MESSAGES) for _ in range(number)]
        return sum(result.get(timeout=_SECONDS)["text"] == "turns" for result in sent)

    send_and_wait(1)  # connects, and knows that a worker is there
    shares = [subtasks // threads] * threads
    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        right = sum(pool.map(send_and_wait, shares))
    seconds = time.perf_counter() - began
    assert right == sum(shares), f"{right} of {sum(shares)} results were right"
    return {"subtasks": right, "seconds": seconds, "cpu_seconds": time.process_time() - cpu}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
