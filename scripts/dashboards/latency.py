"""Latency: how long clients wait, and where the time goes."""

from typing import Final

from scripts.dashboards.panels import (
    MODEL,
    STRATEGY,
    Dashboard,
    Row,
    heatmap,
    panel,
    quantile,
    quantiles,
    stat,
)

_STRATEGY: Final = 'strategy=~"$strategy"'
_MODEL: Final = 'model=~"$model"'


NOW: Final = Row(
    "Now",
    (
        stat(
            "First text, half",
            "Half of the requests get their first text sooner than this.",
            quantile("millrace_first_text_seconds", 0.5, _STRATEGY),
            "s",
            ((2, "yellow"), (10, "red")),
        ),
        stat(
            "First text, 95 %",
            "19 of 20 requests get their first text sooner than this.",
            quantile("millrace_first_text_seconds", 0.95, _STRATEGY),
            "s",
            ((5, "yellow"), (10, "red")),
        ),
        stat(
            "Whole answer, half",
            "Half of the requests end sooner than this.",
            quantile("millrace_request_seconds", 0.5, _STRATEGY),
            "s",
        ),
        stat(
            "Whole answer, 95 %",
            "19 of 20 requests end sooner than this.",
            quantile("millrace_request_seconds", 0.95, _STRATEGY),
            "s",
        ),
        stat(
            "Tokens per second",
            "How fast the median answer is written, while it is written.",
            quantile("millrace_worker_tokens_per_second", 0.5, _MODEL),
        ),
        stat(
            "Open streams",
            "Clients that are being answered at this moment.",
            "sum(millrace_open_streams)",
        ),
    ),
)

CLIENTS: Final = Row(
    "What clients see",
    (
        panel(
            "First text",
            "From accepting a request to the first text of its answer. Dots are traces.",
            *quantiles("millrace_first_text_seconds", "strategy", _STRATEGY),
            unit="s",
            width=12,
            steps=((10, "red"),),
            exemplars=True,
        ),
        panel(
            "Whole answer",
            "From accepting a request to its end. Dots are traces.",
            *quantiles("millrace_request_seconds", "strategy", _STRATEGY),
            unit="s",
            width=12,
            exemplars=True,
        ),
        heatmap(
            "First text, spread",
            "How many requests got their first text after how long.",
            "millrace_first_text_seconds",
            _STRATEGY,
        ),
        heatmap(
            "Whole answer, spread",
            "How many requests took how long.",
            "millrace_request_seconds",
            _STRATEGY,
        ),
    ),
)

PARTS: Final = Row(
    "Where the time goes",
    (
        panel(
            "In the queue",
            "How long subtasks waited until a worker began. Milliseconds are the way to it; where "
            "it is seconds, more workers would help.",
            *quantiles("millrace_queue_seconds", "model", _MODEL),
            unit="s",
            exemplars=True,
        ),
        panel(
            "First token of the engine",
            "From asking the engine to its first token: reading the prompt, and loading the model.",
            *quantiles("millrace_worker_first_token_seconds", "model", _MODEL),
            unit="s",
            exemplars=True,
        ),
        panel(
            "Between tokens",
            "The pause between two pieces of text of the engine.",
            *quantiles("millrace_worker_inter_token_seconds", "model", _MODEL),
            unit="s",
        ),
        panel(
            "Speed of one answer",
            "Completion tokens per second of a single subtask. Falls when slots are shared.",
            *quantiles("millrace_worker_tokens_per_second", "model", _MODEL, 0.5, 0.05),
            unit="short",
        ),
        panel(
            "Stages of a search",
            "Time of each stage of retrieval, which comes before the first subtask.",
            *quantiles("millrace_retrieval_stage_seconds", "stage", "", 0.95),
            unit="s",
        ),
        panel(
            "Clients that read too slowly",
            "Streams that were cut, because their client took nothing for too long.",
            ("sum(rate(millrace_slow_consumers_total[$__rate_interval]))", "cut"),
            unit="ops",
        ),
    ),
)

LATENCY: Final = Dashboard(
    "millrace-latency",
    "Latency",
    "How long clients wait for the first text and for all of it, and where the time goes.",
    (NOW, CLIENTS, PARTS),
    (STRATEGY, MODEL),
)
