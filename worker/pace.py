"""How fast a worker's engine writes: histograms of one model."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bus import tracing
from queue_schemas.messages import Usage

_FIRST: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SPEED: Final = (1, 2.5, 5, 10, 20, 30, 50, 75, 100, 200, 500, 1000)


class Gaps(Collector):
    """Between two pieces of text: counted for each, so a tenth as dear as the library does it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._counts = [0] * (len(_BETWEEN) + 1)
        self._sum = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(_BETWEEN, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        """All that were counted."""
        found = HistogramMetricFamily(
            "millrace_worker_inter_token_seconds",
            "Between two pieces of the engine's text, of one or more tokens each.",
            labels=["model"],
        )
        bounds = [*map(floatToGoString, _BETWEEN), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        found.add_metric([self._model], buckets, self._sum)
        yield found


class Pace:
    """In no registry, so that one process may have several workers."""

    def __init__(self, model: str) -> None:
        self.first_token = Histogram(
            "millrace_worker_first_token_seconds",
            "From the beginning of an execution to the engine's first text.",
            ["model"],
            buckets=_FIRST,
            registry=None,
        )
        self.inter_token = Gaps(model)
        self.tokens_per_second = Histogram(
            "millrace_worker_tokens_per_second",
            "Of one execution, from its first text to its end.",
            ["model"],
            buckets=_SPEED,
            registry=None,
        )
        self._first = self.first_token.labels(model)
        self._speed = self.tokens_per_second.labels(model)

    def note(self, usage: Usage) -> None:
        """Note an execution that ended; of one without text there is nothing to say."""
        if usage.first_token_seconds is None:
            return
        trace = tracing.current_trace_id()
        exemplar = None if trace is None else {"trace_id": trace}
        self._first.observe(usage.first_token_seconds, exemplar)
        writing = usage.engine_seconds - usage.first_token_seconds
        if writing > 0 and usage.completion_tokens > 1:
            self._speed.observe((usage.completion_tokens - 1) / writing, exemplar)
