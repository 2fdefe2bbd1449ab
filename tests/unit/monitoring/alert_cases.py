"""For each alert: what makes it fire, and what is near to that and does not.

Series are in promtool's notation, with a sample every minute: `2+0x30` is 2 for half an hour,
`0+1x30` grows by 1 a minute, `_` is a sample that is missing, and `stale` a series that ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """After so many minutes the alert fires for the first series, and for none of the others."""

    minutes: int
    fires: Series
    is_quiet: Series
    also_quiet: Series = field(default_factory=dict)


_MASTER = 'up{job="millrace-master", instance="a:8000"}'
_SUBTASKS = 'millrace_subtasks{model="m", state="queued", instance="a:8000"}'
_LIVE = 'millrace_model_workers{model="m", state="live"}'
_READY = 'millrace_worker_ready{model="%s", instance="c:8002"}'
_ENDED = 'millrace_request_endings_total{strategy="direct", state="%s"}'
_RESULTS = 'millrace_results_total{model="m", outcome="%s"}'
_RETRIES = 'millrace_retries_total{model="m", reason="lost"}'
_FAILURES = 'millrace_worker_engine_failures_total{model="m", kind="%s"}'
_EXECUTIONS = 'millrace_worker_executions_total{model="m", outcome="failed"}'
_INGESTS = 'millrace_ingests_total{outcome="%s"}'
_SEARCHES = 'millrace_searches_total{outcome="%s"}'
_FIRST_TEXT = 'millrace_first_text_seconds_%s{strategy="direct"%s}'


def _first_texts(slow: str, fast: str, together: str) -> Series:
    return {
        _FIRST_TEXT % ("bucket", ', le="10.0"'): fast,
        _FIRST_TEXT % ("bucket", ', le="30.0"'): slow,
        _FIRST_TEXT % ("bucket", ', le="+Inf"'): slow,
        _FIRST_TEXT % ("count", ""): together,
    }


def _outbox(model: str, on_queue: str, unpublished: str) -> Series:
    """Seven subtasks wait in the database; the queue has a window of 8."""
    return {
        f'millrace_backlog_subtasks{{model="{model}"}}': "7+0x10",
        f'millrace_queue_messages{{model="{model}", state="ready"}}': on_queue,
        f'millrace_queue_window{{model="{model}"}}': "8+0x10",
        f'millrace_outbox_oldest_seconds{{model="{model}"}}': unpublished,
        f'millrace_oldest_waiting_seconds{{model="{model}"}}': "900+60x10",
    }


CASES: Mapping[str, Case] = {
    "MillraceMasterDown": Case(
        3,
        {_MASTER: "1 0 0 0 0"},
        {_MASTER: "0+0x5", 'up{job="millrace-master", instance="b:8000"}': "1+0x5"},
    ),
    "MillraceTargetDown": Case(
        9,
        {'up{job="keda", instance="k:8080"}': "1 1 0+0x10"},
        {'up{job="grafana", instance="d:3000"}': "0+0x10", _MASTER: "0 0 0 0 1 0 0 0"},
        also_quiet={'up{job="keda", instance="k:8080"}': "0+0x20"},
    ),
    "MillraceDatabaseUnreachable": Case(
        3,
        {
            'millrace_dependency_up{dependency="database", instance="a:8000"}': "0+0x5",
            'millrace_dependency_up{dependency="database", instance="b:8000"}': "1+0x5",
        },
        {
            'millrace_dependency_up{dependency="database"}': "1+0x5",
            'millrace_dependency_up{dependency="broker"}': "0+0x5",
        },
    ),
    "MillraceBrokerUnreachable": Case(
        3,
        {'millrace_dependency_up{dependency="broker"}': "0+0x5"},
        {'millrace_dependency_up{dependency="broker"}': "0 1 0 1 0 1"},
    ),
    "MillraceBrokerAlarm": Case(
        3,
        {
            "rabbitmq_alarms_memory_used_watermark": "0+0x5",
            "rabbitmq_alarms_free_disk_space_watermark": "1+0x5",
        },
        {
            "rabbitmq_alarms_memory_used_watermark": "0+0x5",
            "rabbitmq_alarms_free_disk_space_watermark": "0+0x5",
        },
    ),
    "MillraceLoopFailing": Case(
        15,
        {'millrace_loop_failures_total{loop="sweep"}': "0+2x20"},
        {'millrace_loop_failures_total{loop="sweep"}': "0 2 2+0x20"},
    ),
    "MillraceWorkerNotReady": Case(
        20,
        {'millrace_worker_ready{model="m"}': "0+0x30"},
        {'millrace_worker_ready{model="m"}': "0+0x10 1+0x20"},
    ),
    "MillraceEmbedderNotReady": Case(
        15,
        {"millrace_embedder_ready": "0+0x20"},
        {"millrace_embedder_ready": "0+0x4 1+0x20"},
    ),
    "MillraceNoWorker": Case(
        7,
        {_SUBTASKS: "3+0x10", _LIVE: "0+0x10", _READY % "other": "1+0x10"},
        {_SUBTASKS: "3+0x10", _LIVE: "1+0x10"},
        also_quiet={_SUBTASKS: "3+0x10", _LIVE: "0+0x10", _READY % "m": "0+0x10"},
    ),
    "MillraceNoWorkerReady": Case(
        25,
        {_SUBTASKS: "3+0x30", _LIVE: "0+0x30", _READY % "m": "0 0 stale " * 10},
        {_SUBTASKS: "3+0x30", _LIVE: "0+0x15 1+0x15", _READY % "m": "0+0x30"},
        also_quiet={_SUBTASKS: "3+0x30", _LIVE: "0+0x30", _READY % "other": "0+0x30"},
    ),
    "MillraceQueueOld": Case(
        16,
        {'millrace_oldest_waiting_seconds{model="m"}': "0+60x20"},
        {'millrace_oldest_waiting_seconds{model="m"}': "300+0x20"},
    ),
    "MillraceBacklogGrowing": Case(
        45,
        {_SUBTASKS: "0+20x50"},
        {_SUBTASKS: "2000-20x50"},
    ),
    "MillraceOutboxStuck": Case(
        5,
        _outbox("m", on_queue="0+0x10", unpublished="90+60x10"),
        _outbox("busy", on_queue="8+0x10", unpublished="90+60x10")
        | _outbox("moves", on_queue="0+0x10", unpublished="1+0x10"),
    ),
    "MillraceScalerFailing": Case(
        20,
        {'keda_scaler_detail_errors_total{namespace="millrace", scaledObject="w"}': "0+1x30"},
        {'keda_scaler_detail_errors_total{namespace="others", scaledObject="w"}': "0+1x30"},
    ),
    "MillraceRequestsFailing": Case(
        20,
        {
            _ENDED % "completed": "0+4x30",
            _ENDED % "failed": "0+1x30",
            _ENDED % "cancelled": "0+40x30",
        },
        {_ENDED % "completed": "0+40x30", _ENDED % "cancelled": "0+40x30"},
    ),
    "MillraceFirstTextSlow": Case(
        25,
        _first_texts(slow="0+10x40", fast="0+5x40", together="0+10x40"),
        _first_texts(slow="0+10x40", fast="0+10x40", together="0+10x40"),
    ),
    "MillraceDeadLetters": Case(
        3,
        {'millrace_dead_subtasks{model="m"}': "1+0x5"},
        {'millrace_dead_subtasks{model="m"}': "0+0x5"},
    ),
    "MillraceQuarantine": Case(
        3,
        {"millrace_quarantined_messages": "0 2 2 2"},
        {"millrace_quarantined_messages": "0+0x5"},
    ),
    "MillraceResultsRefused": Case(
        30,
        {_RESULTS % "completed": "0+5x40", _RESULTS % "late": "0+1x40"},
        {_RESULTS % "completed": "0+50x40", _RESULTS % "late": "0+1x40"},
    ),
    "MillraceRetriesMany": Case(
        25,
        {
            _RESULTS % "failed": "0+2x30",
            'millrace_retries_total{model="m", reason="lost"}': "0+1x30",
        },
        {
            _RESULTS % "failed": "0+9x30",
            'millrace_retries_total{model="m", reason="lost"}': "0+1x30",
        },
    ),
    "MillraceRedeliveries": Case(
        10,
        {'millrace_redeliveries_total{model="m"}': "0+1x20"},
        {'millrace_redeliveries_total{model="m"}': "0 2 2+0x20"},
    ),
    "MillraceEngineFailing": Case(
        20,
        {_FAILURES % "transient": "0+1x30", _EXECUTIONS: "0+2x30"},
        {_FAILURES % "permanent": "0+1x30", _EXECUTIONS: "0+2x30"},
    ),
    "MillraceIngestsFailing": Case(
        20,
        {_INGESTS % "failed": "0+1x30", _INGESTS % "ready": "0+1x30"},
        {_INGESTS % "failed": "0 2 2+0x30", _INGESTS % "ready": "0+1x30"},
    ),
    "MillraceIngestionStuck": Case(
        35,
        {
            'millrace_documents{state="waiting"}': "5+0x40",
            _INGESTS % "ready": "3+0x40",
            _INGESTS % "again": "0+5x40",
        },
        {'millrace_documents{state="waiting"}': "5+0x40", _INGESTS % "ready": "3+1x40"},
    ),
    "MillraceTasksFailing": Case(
        20,
        {'millrace_celery_tasks_total{task="learn", outcome="failed"}': "0+1x30"},
        {'millrace_celery_tasks_total{task="learn", outcome="succeeded"}': "0+1x30"},
    ),
    "MillraceSearchesFailing": Case(
        20,
        {_SEARCHES % "failed": "0+1x30", _SEARCHES % "hits": "0+5x30"},
        {_SEARCHES % "failed": "0+1x30", _SEARCHES % "hits": "0+50x30"},
    ),
    "MillraceSearchesDegraded": Case(
        25,
        {_SEARCHES % "degraded": "0+1x30", _SEARCHES % "hits": "0+2x30"},
        {_SEARCHES % "degraded": "0+1x30", _SEARCHES % "hits": "0+20x30"},
    ),
    "MillraceRuleTakenBack": Case(
        8,
        {'millrace_rules{state="active"}': "4+0x4 3+0x5"},
        {'millrace_rules{state="active"}': "4+0x4 5+0x5"},
    ),
}
