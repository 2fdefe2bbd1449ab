"""Workers and GPUs: what they do, how full they are, and what a token costs."""

from typing import Final

from scripts.dashboards.panels import MODEL, Dashboard, Row, panel, stat

_MODEL: Final = '{model=~"$model"}'
_RATE: Final = '{model=~"$model"}[$__rate_interval]'
_ENDED: Final = '{model=~"$model"}[15m]'
"""For what is counted at the end of an execution: in a shorter time it would be none, then many."""

NOW: Final = Row(
    "Now",
    (
        stat(
            "Workers",
            "Workers that take subtasks, as they say themselves.",
            f"sum(millrace_worker_ready{_MODEL})",
        ),
        stat(
            "Not ready",
            "Workers that run and take nothing: without a broker, without an engine, or draining.",
            f"sum(millrace_worker_ready{_MODEL} == bool 0)",
            steps=((1, "yellow"),),
        ),
        stat(
            "Running",
            "Executions in progress.",
            f"sum(millrace_worker_running_subtasks{_MODEL})",
        ),
        stat(
            "Slots used",
            "Share of the slots that hold an execution.",
            f"sum(millrace_worker_running_subtasks{_MODEL})"
            f" / sum(millrace_worker_subtask_slots{_MODEL})",
            "percentunit",
        ),
        stat(
            "Engines held",
            "How many executions held an engine, on average of a quarter of an hour.",
            f"sum(avg_over_time(millrace_worker_running_subtasks{_MODEL}[15m]))",
        ),
        stat(
            "Tokens per second",
            "Completion tokens of all workers, on average of a quarter of an hour.",
            'sum(rate(millrace_worker_tokens_total{model=~"$model", kind="completion"}[15m]))',
        ),
    ),
)

USE: Final = Row(
    "Use",
    (
        panel(
            "Executions in progress",
            "What workers of each model hold.",
            (f"sum by (model) (millrace_worker_running_subtasks{_MODEL})", "{{model}}"),
            stacked=True,
        ),
        panel(
            "Slots used",
            "Share of the slots of each model. At 100 % more workers would be used.",
            (
                f"sum by (model) (millrace_worker_running_subtasks{_MODEL})"
                f" / sum by (model) (millrace_worker_subtask_slots{_MODEL})",
                "{{model}}",
            ),
            unit="percentunit",
        ),
        panel(
            "GPU seconds",
            "Seconds per second for which engines were held, counted when an execution ends: the "
            "average of a quarter of an hour. Slots of one engine share its GPU.",
            (f"sum by (model) (rate(millrace_worker_engine_seconds_total{_ENDED}))", "{{model}}"),
            stacked=True,
        ),
        panel(
            "Tokens",
            "Prompt and completion tokens per second, counted when an execution ends: the average "
            "of a quarter of an hour.",
            (
                f"sum by (model, kind) (rate(millrace_tokens_total{_ENDED}))",
                "{{model}} {{kind}}",
            ),
        ),
        panel(
            "GPU seconds of 1000 tokens",
            "How long an engine is held for a thousand completion tokens: the price of a model.",
            (
                f"1000 * sum by (model) (rate(millrace_engine_seconds_total{_ENDED}))"
                ' / (sum by (model) (rate(millrace_tokens_total{model=~"$model", '
                'kind="completion"}[15m])) > 0)',
                "{{model}}",
            ),
            unit="s",
        ),
        panel(
            "Workers by state",
            "Live and draining, as masters hear of them by heartbeats.",
            (f"max by (model, state) (millrace_model_workers{_MODEL})", "{{model}} {{state}}"),
        ),
    ),
)

TROUBLE: Final = Row(
    "Trouble",
    (
        panel(
            "Executions by outcome",
            "Executions that ended: completed, failed or cancelled.",
            (
                f"sum by (outcome) (rate(millrace_worker_executions_total{_RATE}))",
                "{{outcome}}",
            ),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Failures of engines",
            "What engines refused or broke off, by kind. Transient ones are tried again.",
            (
                f"sum by (model, kind) (rate(millrace_worker_engine_failures_total{_RATE}))",
                "{{model}} {{kind}}",
            ),
            unit="ops",
        ),
        panel(
            "Redeliveries",
            "Messages that came again, because the worker that had them was lost.",
            (
                f"sum by (model) (rate(millrace_worker_redeliveries_total{_RATE}))",
                "{{model}}",
            ),
            unit="ops",
        ),
        panel(
            "Who runs",
            "Every worker with its release, model and engine.",
            (f"millrace_worker_build_info{_MODEL}", "{{instance}}"),
            kind="table",
            width=24,
        ),
    ),
)

WORKERS: Final = Dashboard(
    "millrace-workers",
    "Workers and GPUs",
    "What workers do, how full they are, what tokens cost, and what goes wrong with engines.",
    (NOW, USE, TROUBLE),
    (MODEL,),
)
