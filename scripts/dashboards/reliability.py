"""Reliability: what fails, what is lost and done again, and what waits for a person."""

from typing import Final

from scripts.dashboards.panels import MODEL, Dashboard, Row, panel, quantiles, stat

_MODEL: Final = '{model=~"$model"}'
_RATE: Final = "[$__rate_interval]"
_OF_MODEL: Final = f"{_MODEL}{_RATE}"

NOW: Final = Row(
    "Now",
    (
        stat(
            "Alerts",
            "Alerts that fire. The runbook has a section for each of them.",
            'count(ALERTS{alertstate="firing", alertname=~"Millrace.*"})',
            steps=((1, "red"),),
        ),
        stat(
            "Masters",
            "Masters that answer Prometheus.",
            'sum(up{job="millrace-master"})',
        ),
        stat(
            "Failed, of 10 minutes",
            "Share of the requests that failed or took too long; cancelled ones do not count.",
            'sum(increase(millrace_request_endings_total{state=~"failed|expired"}[10m]))'
            ' / (sum(increase(millrace_request_endings_total{state!="cancelled"}[10m])) > 0)',
            "percentunit",
            ((0.02, "yellow"), (0.1, "red")),
        ),
        stat(
            "Dead subtasks",
            "Subtasks that were given up and wait for a person: do them again or put them away.",
            f"sum(max by (model) (millrace_dead_subtasks{_MODEL}))",
            steps=((1, "yellow"),),
        ),
        stat(
            "Quarantined",
            "Messages that nobody could read. They wait for a person.",
            "max(millrace_quarantined_messages)",
            steps=((1, "red"),),
        ),
        stat(
            "Takeovers, of the last hour",
            "Requests whose stream went on at another master, because theirs was lost.",
            "sum(increase(millrace_takeovers_total[1h]))",
        ),
    ),
)

ENDINGS: Final = Row(
    "Requests",
    (
        panel(
            "Requests by ending",
            "How requests end: completed, failed, cancelled by their client, or expired: too late.",
            (
                f"sum by (state) (rate(millrace_request_endings_total{_RATE}))",
                "{{state}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        panel(
            "Subtasks by ending",
            "How single model calls end. Dead ones ran out of attempts.",
            (
                f"sum by (state) (rate(millrace_subtask_endings_total{_OF_MODEL}))",
                "{{state}}",
            ),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Results by outcome",
            "Results that were collected. Late ones came from a superseded execution and are "
            "refused.",
            (f"sum by (outcome) (rate(millrace_results_total{_OF_MODEL}))", "{{outcome}}"),
            unit="ops",
            stacked=True,
        ),
    ),
)

AGAIN: Final = Row(
    "Done again",
    (
        panel(
            "Retries",
            "Attempts after a first one that failed, by reason.",
            (f"sum by (reason) (rate(millrace_retries_total{_OF_MODEL}))", "{{reason}}"),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Redeliveries",
            "Messages that the broker gave to a second worker.",
            (f"sum by (model) (rate(millrace_redeliveries_total{_OF_MODEL}))", "{{model}}"),
            unit="ops",
        ),
        panel(
            "Sent again",
            "Gaps in streams, for which workers had to send again what was lost on the way.",
            (f"sum(rate(millrace_resends_total{_RATE}))", "resends"),
            unit="ops",
        ),
        panel(
            "Cancels",
            "Requests that were cancelled, by cause.",
            (f"sum by (cause) (rate(millrace_cancels_total{_RATE}))", "{{cause}}"),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Time to stop",
            "From ending a request early until it was known that its engine's work had stopped.",
            *quantiles("millrace_stop_seconds", "model", 'model=~"$model"', 0.5, 0.99),
            unit="s",
            steps=((0.1, "red"),),
            exemplars=True,
        ),
        panel(
            "Given up",
            "Subtasks that became dead, per hour.",
            (f"sum by (model) (increase(millrace_dead_total{_MODEL}[1h]))", "{{model}}"),
        ),
        panel(
            "Dead and quarantined",
            "What waits for a person's decision.",
            (f"max by (model) (millrace_dead_subtasks{_MODEL})", "dead {{model}}"),
            ("max(millrace_quarantined_messages)", "quarantined"),
        ),
    ),
)

PARTS: Final = Row(
    "Parts",
    (
        panel(
            "Who answers",
            "Targets that Prometheus reaches, by job.",
            ('sum by (job) (up{job=~"millrace-.*|rabbitmq.*|keda"})', "{{job}}"),
        ),
        panel(
            "Database and broker",
            "Whether all masters reach them: 1 is yes.",
            ("min by (dependency) (millrace_dependency_up)", "{{dependency}}"),
        ),
        panel(
            "Loops that failed",
            "Rounds of a master's loops that ended with an error and are tried again, per 5 "
            "minutes.",
            ("sum by (loop) (increase(millrace_loop_failures_total[5m]))", "{{loop}}"),
        ),
        panel(
            "The broker's alarms",
            "1: short of memory or of disk, and it takes no message.",
            ("max(rabbitmq_alarms_memory_used_watermark)", "memory"),
            ("max(rabbitmq_alarms_free_disk_space_watermark)", "disk"),
        ),
        panel(
            "Streams cut",
            "Clients that read too slowly, and open streams.",
            ("sum(millrace_open_streams)", "open"),
            ("sum(increase(millrace_slow_consumers_total[5m]))", "cut in 5 minutes"),
        ),
        panel(
            "Connections to the database",
            "Share of each pool that is in use, where it is fullest. At 100 % requests wait.",
            (
                'max by (pool) (millrace_database_connections{state="busy"}'
                " / on (instance, pool) sum by (instance, pool) (millrace_database_connections))",
                "{{pool}}",
            ),
            unit="percentunit",
        ),
        panel(
            "Sign-ins to the console",
            "Keys that were given to sign in, per 5 minutes. Many refused ones: somebody guesses.",
            (
                "sum by (outcome) (increase(millrace_console_sign_ins_total[5m]))",
                "{{outcome}}",
            ),
        ),
        panel(
            "Releases",
            "Masters by release: two of them during an upgrade only.",
            ("count by (version) (millrace_build_info)", "{{version}}"),
        ),
    ),
)

RELIABILITY: Final = Dashboard(
    "millrace-reliability",
    "Reliability",
    "What fails, what is lost and done again, and what waits for a person.",
    (NOW, ENDINGS, AGAIN, PARTS),
    (MODEL,),
)
