"""Retrieval: searches, documents on their way in, and who embeds them."""

from typing import Final

from scripts.dashboards.panels import Dashboard, Row, panel, quantiles, stat

_RATE: Final = "[$__rate_interval]"

NOW: Final = Row(
    "Now",
    (
        stat(
            "Searches per second",
            "Searches of clients and of chats that look something up.",
            f"sum(rate(millrace_searches_total{_RATE}))",
            "ops",
        ),
        stat(
            "Documents ready",
            "Documents whose chunks can be found.",
            'max(millrace_documents{state="ready"})',
        ),
        stat(
            "Waiting",
            "Documents that wait for their ingestion.",
            'max(millrace_documents{state="waiting"})',
            steps=((100, "yellow"),),
        ),
        stat(
            "Running",
            "Documents that are being ingested.",
            'max(millrace_documents{state="running"})',
        ),
        stat(
            "Failed",
            "Documents that could not be read or embedded. Their record says why.",
            'max(millrace_documents{state="failed"})',
            steps=((1, "yellow"),),
        ),
        stat(
            "Embedders ready",
            "Embedders that have loaded their model. None where an engine elsewhere embeds.",
            "sum(millrace_embedder_ready)",
        ),
    ),
)

SEARCHES: Final = Row(
    "Searches",
    (
        panel(
            "Searches by outcome",
            "How searches ended: degraded ones did without a model that they should have had.",
            (f"sum by (outcome) (rate(millrace_searches_total{_RATE}))", "{{outcome}}"),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Time of each stage, half",
            "The median of every stage: embedding the question, the legs, fusion, reranking.",
            *quantiles("millrace_retrieval_stage_seconds", "stage", "", 0.5),
            unit="s",
        ),
        panel(
            "Time of each stage, 95 %",
            "The slow ones of every stage.",
            *quantiles("millrace_retrieval_stage_seconds", "stage", "", 0.95),
            unit="s",
            exemplars=True,
        ),
    ),
)

DOCUMENTS: Final = Row(
    "Documents",
    (
        panel(
            "Documents by state",
            "All documents of all tenants.",
            ("max by (state) (millrace_documents)", "{{state}}"),
        ),
        panel(
            "Ingestions by outcome",
            "Attempts to ingest a document that ended.",
            (f"sum by (outcome) (rate(millrace_ingests_total{_RATE}))", "{{outcome}}"),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Time of each stage, 95 %",
            "Parsing, chunking, embedding and storing a document.",
            *quantiles("millrace_ingest_stage_seconds", "stage", "", 0.95),
            unit="s",
        ),
        panel(
            "Celery's tasks",
            "Tasks that ended, by task and outcome.",
            (
                f"sum by (task, outcome) (rate(millrace_celery_tasks_total{_RATE}))",
                "{{task}} {{outcome}}",
            ),
            unit="ops",
            width=12,
        ),
        panel(
            "Time of Celery's tasks, 95 %",
            "How long tasks take, by task.",
            *quantiles("millrace_celery_task_seconds", "task", "", 0.95),
            unit="s",
            width=12,
        ),
    ),
)

EMBEDDER: Final = Row(
    "Embedder",
    (
        panel(
            "Texts",
            "Texts that embedders turned into vectors. Empty where an engine elsewhere embeds.",
            (f"sum(rate(millrace_embedder_texts_total{_RATE}))", "texts"),
            unit="ops",
        ),
        panel(
            "Calls by outcome",
            "Calls of embedders that ended, for vectors and for an order of texts.",
            (
                f"sum by (call, outcome) (rate(millrace_embedder_requests_total{_RATE}))",
                "{{call}} {{outcome}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        panel(
            "Time of a call",
            "How long a call of an embedder takes.",
            *quantiles("millrace_embedder_seconds", "call", ""),
            unit="s",
        ),
        panel(
            "Texts of a batch",
            "How many texts are computed at once. One at a time wastes a GPU.",
            *quantiles("millrace_embedder_batch_texts", "job", ""),
        ),
    ),
)

RETRIEVAL: Final = Dashboard(
    "millrace-retrieval",
    "Retrieval",
    "How searches fare, what becomes of documents, and how fast they are embedded.",
    (NOW, SEARCHES, DOCUMENTS, EMBEDDER),
)
