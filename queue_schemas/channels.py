"""Who sends what to whom: one row per queue and exchange, the table behind the AsyncAPI export."""

from dataclasses import dataclass

from queue_schemas import messages, topology
from queue_schemas.messages import Message


@dataclass(frozen=True)
class Exchange:
    """An exchange as data; `routing_key` is a pattern for people, empty where it is ignored."""

    name: str
    type: str
    routing_key: str = ""


@dataclass(frozen=True)
class Sender:
    """A role that sends on a channel: `only` these messages, or all that it carries."""

    role: str
    only: tuple[type[Message], ...] = ()


@dataclass(frozen=True)
class Channel:
    """A queue or an exchange, what it carries and who is at its two ends."""

    key: str
    at: topology.Queue | Exchange
    summary: str
    carries: tuple[type[Message], ...] = ()
    senders: tuple[Sender, ...] = ()
    receivers: tuple[str, ...] = ()
    bound_to: str | None = None

    @property
    def address(self) -> str | None:
        """Queue name or routing key, with `{parameters}`."""
        name = self.at.name if isinstance(self.at, topology.Queue) else self.at.routing_key
        return name or None


PARAMETERS = {
    "slug": "The model's slug in the registry.",
    "master": "The name of a master replica.",
    "worker": "The name of a worker.",
    "watcher": "Any name that no other watcher uses.",
    "event": "The event's type, for example `request.completed`.",
}
"""What stands in braces in the addresses below."""

_MASTER, _WORKER = Sender("master"), Sender("worker")
_RESULT = (messages.Completed, messages.Failed)
_REPORT = (messages.Started, messages.Heartbeat)
_ORDER = (messages.Cancel, messages.Resend, messages.Drain)

CHANNELS = (
    Channel(
        "subtasks",
        topology.subtasks("{slug}"),
        "Work for one model. Take one message per generation slot; acknowledge when the result "
        "is confirmed.",
        (messages.SubtaskRequest,),
        senders=(_MASTER,),
        receivers=("worker",),
    ),
    Channel(
        "results",
        topology.RESULTS,
        "What executions came to: one message for each that ended.",
        _RESULT,
        senders=(_WORKER,),
        receivers=("master",),
    ),
    Channel(
        "workers",
        topology.WORKERS,
        "Claims and heartbeats; they renew leases.",
        _REPORT,
        senders=(_WORKER,),
        receivers=("master",),
    ),
    Channel(
        "tokens",
        topology.tokens("{master}"),
        "Text while it is generated, for the one master replica that streams it. May be lost.",
        (messages.Started, messages.TokenChunk, messages.Notice),
        senders=(
            Sender("worker", only=(messages.Started, messages.TokenChunk)),
            Sender("master", only=(messages.Notice,)),
        ),
        receivers=("master",),
    ),
    Channel(
        "control",
        Exchange(topology.CONTROL_EXCHANGE, "fanout"),
        "Orders to all workers. May be lost.",
        _ORDER,
        senders=(_MASTER,),
    ),
    Channel(
        "controlOfWorker",
        topology.control("{worker}"),
        "One worker's own copy of every order.",
        _ORDER,
        receivers=("worker",),
        bound_to=topology.CONTROL_EXCHANGE,
    ),
    Channel(
        "events",
        Exchange(topology.EVENTS_EXCHANGE, "topic", "{event}"),
        "What happened, for whoever watches. May be lost.",
        (messages.Event,),
        senders=(_MASTER,),
    ),
    Channel(
        "eventsOfWatcher",
        topology.watcher("{watcher}"),
        "The events that one watcher asked for, while it is connected.",
        (messages.Event,),
        receivers=("watcher",),
        bound_to=topology.EVENTS_EXCHANGE,
    ),
    Channel(
        "eventsOfN8n",
        topology.N8N,
        "All events, kept for n8n while it is away; the oldest go first when there are too many.",
        (messages.Event,),
        receivers=("n8n",),
        bound_to=topology.EVENTS_EXCHANGE,
    ),
    Channel(
        "feedback",
        topology.FEEDBACK,
        "Notes with feedback that were stored in the inbox. Never signed: a note says where to "
        "look, and what is found there is verified.",
        (messages.FeedbackNote,),
        senders=(Sender("n8n"),),
        receivers=("master",),
    ),
    Channel(
        "dead",
        topology.DEAD,
        "Messages that killed their consumers too often, kept for inspection.",
        (messages.SubtaskRequest, *_RESULT, *_REPORT),
    ),
    Channel(
        "quarantine",
        topology.QUARANTINE,
        "Bodies that could not be read or were signed wrongly, as they came, with the reason in "
        "a header.",
    ),
)
