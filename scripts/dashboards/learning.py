"""Learning: what people think of answers, and which rules come of it."""

from typing import Final

from scripts.dashboards.panels import Dashboard, Row, panel, stat

_RATE: Final = "[$__rate_interval]"

NOW: Final = Row(
    "Now",
    (
        stat(
            "Good, of the last day",
            "Share of judgements that were good. It needs judgements: see their number.",
            'sum(increase(millrace_judgements_total{verdict="good"}[1d])) / '
            '(sum(increase(millrace_judgements_total{verdict=~"good|mixed|bad"}[1d])) > 0)',
            "percentunit",
        ),
        stat(
            "Judgements of the last day",
            "By people and by programs, of whichever verdict.",
            "sum(increase(millrace_judgements_total[1d]))",
        ),
        stat(
            "Rules at work",
            "Active rules: approved by a person or by a measured lift.",
            'max(millrace_rules{state="active"})',
        ),
        stat(
            "On trial",
            "Rules that hold for a share of the questions and are compared with the others.",
            'max(millrace_rules{state="canary"})',
        ),
        stat(
            "Proposed",
            "Rules that wait for somebody's decision: see the console's page of rules.",
            'max(millrace_rules{state="proposed"})',
            steps=((1, "blue"),),
        ),
        stat(
            "From the cache, of the last day",
            "Share of the chats that might have had an answer already and did.",
            'sum(increase(millrace_cache_total{found="yes"}[1d]))'
            " / (sum(increase(millrace_cache_total[1d])) > 0)",
            "percentunit",
        ),
    ),
)

JUDGEMENTS: Final = Row(
    "Judgements",
    (
        panel(
            "Judgements by verdict",
            "What was said of answers, per hour.",
            ("sum by (verdict) (increase(millrace_judgements_total[1h]))", "{{verdict}}"),
            stacked=True,
        ),
        panel(
            "Judgements by source",
            "Where they came from, per hour.",
            ("sum by (source) (increase(millrace_judgements_total[1h]))", "{{source}}"),
            stacked=True,
        ),
        panel(
            "Ratings in Open WebUI",
            "New or changed ratings that were read there, by what became of them, per hour.",
            (
                "sum by (outcome) (increase(millrace_openwebui_ratings_total[1h]))",
                "{{outcome}}",
            ),
            stacked=True,
        ),
    ),
)

RULES: Final = Row(
    "Rules and the cache",
    (
        panel(
            "Rules by state",
            "Versions of rules, by where they stand.",
            ("max by (state) (millrace_rules)", "{{state}}"),
        ),
        panel(
            "Rules that fitted",
            "Rules that fitted accepted requests, by kind and by what became of them.",
            (
                f"sum by (kind, arm) (rate(millrace_rules_used_total{_RATE}))",
                "{{kind}} {{arm}}",
            ),
            unit="ops",
        ),
        panel(
            "Answers from the cache",
            "Chats that might have had an answer already, and whether they had.",
            (f"sum by (found) (rate(millrace_cache_total{_RATE}))", "{{found}}"),
            unit="reqps",
            stacked=True,
        ),
    ),
)

LEARNING: Final = Dashboard(
    "millrace-learning",
    "Learning",
    "What people think of the answers, which rules came of it, and how often they hold.",
    (NOW, JUDGEMENTS, RULES),
)
