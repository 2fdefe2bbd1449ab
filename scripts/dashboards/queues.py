"""Queue depth and autoscaling: what waits, for how long, and who comes to do it."""

from typing import Final

from scripts.dashboards.panels import MODEL, Dashboard, Row, panel, quantiles, stat

_WAITING: Final = (
    "sum by (model) (max by (model, state) "
    '(millrace_subtasks{model=~"$model", state=~"ready|queued"}))'
)
_BUSY: Final = (
    'sum(max by (model) (millrace_model_slots_busy{model=~"$model"})) / '
    'sum(max by (model) (millrace_model_slots{model=~"$model"}) > 0)'
)

NOW: Final = Row(
    "Now",
    (
        stat(
            "Waiting",
            "Subtasks that no worker has begun, in the database and in the queues.",
            f"sum({_WAITING})",
            steps=((100, "yellow"), (1000, "red")),
        ),
        stat(
            "Oldest waits",
            "How long the oldest waiting subtask has waited.",
            'max(millrace_oldest_waiting_seconds{model=~"$model"})',
            "s",
            ((60, "yellow"), (300, "red")),
        ),
        stat(
            "Running",
            "Subtasks that workers hold.",
            'sum(max by (model) (millrace_subtasks{model=~"$model", state="running"}))',
        ),
        stat(
            "Workers",
            "Live workers. Those that drain finish what they have and take nothing new.",
            'sum(max by (model) (millrace_model_workers{model=~"$model", state="live"}))',
        ),
        stat(
            "Busy slots",
            "Share of all slots of live workers that hold a subtask.",
            _BUSY,
            "percentunit",
            ((0.9, "yellow"),),
        ),
        stat(
            "Unpublished",
            "Subtasks that wait in the database for room on their queue, or for the broker.",
            "max(millrace_outbox_rows)",
            steps=((100, "yellow"), (1000, "red")),
        ),
    ),
)

DEPTH: Final = Row(
    "Depth of each model",
    (
        panel(
            "Waiting subtasks",
            "Not begun, wherever they are. Growing for long: there are too few workers.",
            (_WAITING, "{{model}}"),
            stacked=True,
        ),
        panel(
            "Age of the oldest",
            "How long the oldest waiting subtask of each model has waited.",
            (
                'max by (model) (millrace_oldest_waiting_seconds{model=~"$model"})',
                "{{model}}",
            ),
            unit="s",
            steps=((300, "red"),),
        ),
        panel(
            "Subtasks by state",
            "Open subtasks: blocked ones wait for others, delayed ones for their next try, ready "
            "ones for a place in the queue, queued ones for a worker.",
            (
                'sum by (state) (max by (model, state) (millrace_subtasks{model=~"$model"}))',
                "{{state}}",
            ),
            stacked=True,
        ),
        panel(
            "Messages in the queues",
            "What the broker holds: ready for a worker, or taken and not yet acknowledged.",
            (
                'max by (model, state) (millrace_queue_messages{model=~"$model"})',
                "{{model}} {{state}}",
            ),
        ),
        panel(
            "Kept in the database",
            "Ready subtasks that are not published, because the window of their queue is full.",
            ('max by (model) (millrace_backlog_subtasks{model=~"$model"})', "{{model}}"),
            stacked=True,
        ),
        panel(
            "Window",
            "How many messages a queue may hold, before more wait in the database.",
            ('max by (model) (millrace_queue_window{model=~"$model"})', "{{model}}"),
        ),
        panel(
            "As the broker counts",
            "Messages of each work queue, from RabbitMQ's own metrics: for comparison.",
            (
                'sum by (queue) (rabbitmq_detailed_queue_messages_ready{queue=~"subtasks.*"})',
                "{{queue}} ready",
            ),
            (
                'sum by (queue) (rabbitmq_detailed_queue_messages_unacked{queue=~"subtasks.*"})',
                "{{queue}} unacked",
            ),
        ),
        panel(
            "Outbox",
            "Subtasks that are not published: their queue is full, or the broker is away.",
            ("max(millrace_outbox_rows)", "rows"),
        ),
        panel(
            "Age of the outbox",
            "How long the subtask has been due that waits longest to be published.",
            (
                'max by (model) (millrace_outbox_oldest_seconds{model=~"$model"})',
                "{{model}}",
            ),
            unit="s",
        ),
    ),
)

FLOW: Final = Row(
    "Flow",
    (
        panel(
            "Requests",
            "Accepted and ended requests. Apart for long: work piles up. What `millrace dead "
            "retry` does again ends here and was accepted elsewhere.",
            ("sum(rate(millrace_requests_total[$__rate_interval]))", "accepted"),
            ("sum(rate(millrace_request_endings_total[$__rate_interval]))", "ended"),
            unit="reqps",
        ),
        panel(
            "Subtasks ended",
            "How many subtasks of each model end, in whichever way.",
            (
                "sum by (model) "
                '(rate(millrace_subtask_endings_total{model=~"$model"}[$__rate_interval]))',
                "{{model}}",
            ),
            unit="ops",
            stacked=True,
        ),
        panel(
            "Time in queue",
            "How long subtasks waited, in the database and on their queue, until a worker began.",
            *quantiles("millrace_queue_seconds", "model", 'model=~"$model"'),
            unit="s",
            exemplars=True,
        ),
    ),
)

SCALING: Final = Row(
    "Autoscaling",
    (
        panel(
            "Workers",
            "Live and draining workers of each model.",
            (
                'max by (model, state) (millrace_model_workers{model=~"$model"})',
                "{{model}} {{state}}",
            ),
        ),
        panel(
            "Slots",
            "What live workers take at once, and how much of it is taken.",
            ('sum(max by (model) (millrace_model_slots{model=~"$model"}))', "slots"),
            ('sum(max by (model) (millrace_model_slots_busy{model=~"$model"}))', "busy"),
        ),
        panel(
            "Consumers",
            "Workers as the broker sees them: fewer than above means lost connections.",
            ('max by (model) (millrace_queue_consumers{model=~"$model"})', "{{model}}"),
        ),
        panel(
            "What KEDA sees",
            "The number that KEDA divides by its target to get the workers. Empty without KEDA.",
            (
                'max by (scaledObject, metric) (keda_scaler_metrics_value{namespace="millrace"})',
                "{{scaledObject}} {{metric}}",
            ),
        ),
        panel(
            "Scaled from zero",
            "Whether KEDA keeps a model's workers above none. Empty without KEDA.",
            (
                'max by (scaledObject) (keda_scaler_active{namespace="millrace"})',
                "{{scaledObject}}",
            ),
        ),
        panel(
            "KEDA's failures",
            "Scalers that could not ask for their number. Empty without KEDA.",
            (
                "sum by (scaledObject) "
                '(rate(keda_scaler_detail_errors_total{namespace="millrace"}[$__rate_interval]))',
                "{{scaledObject}}",
            ),
            unit="ops",
        ),
    ),
)

QUEUES: Final = Dashboard(
    "millrace-queues",
    "Queues and autoscaling",
    "What waits for which model, for how long, and how many workers there are for it.",
    (NOW, DEPTH, FLOW, SCALING),
    (MODEL,),
)
