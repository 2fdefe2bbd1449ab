"""The tables. All live in the private schema `millrace` and carry the tenant's id.

Check constraints tie timestamps to states, so that a half-written move cannot be stored. State
lists come from `queue_schemas.states`. Migrations are written by hand; a test asserts that they
end in exactly this metadata.
"""

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from queue_schemas.states import REQUEST_TERMINAL, SUBTASK_TERMINAL, RequestState, SubtaskState

SCHEMA = "millrace"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)


def sql_list(values: Iterable[str]) -> str:
    """Constants of ours as an SQL list: `'a', 'b'`."""
    return ", ".join(f"'{value}'" for value in sorted(values))


def _tenant() -> Column[object]:
    return Column("tenant_id", Uuid, ForeignKey(f"{SCHEMA}.tenants.id"), nullable=False)


def _time(name: str, *, now: bool = False) -> Column[object]:
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=default)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _time("created_at", now=True),
    Column(
        "training",
        Boolean,
        nullable=False,
        server_default="false",
        comment="Its rated chats may be exported to train models.",
    ),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, unique=True, comment="Public part, for look-up."),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the whole key."),
    _time("created_at", now=True),
    _time("revoked_at"),
    Column(
        "made_with",
        Uuid,
        ForeignKey(f"{SCHEMA}.api_keys.id"),
        comment="The key that made it in the console, and with which it is revoked.",
    ),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("end_user", Text),
    Column("model", Text, nullable=False, comment="As the client named it."),
    Column("state", Text, nullable=False, server_default=RequestState.ACCEPTED),
    Column("question", JSONB, nullable=False),
    Column("plan", JSONB, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("reply_to", Text, comment="Tokens queue of the replica that streams it."),
    Column(
        "adopted",
        Boolean,
        nullable=False,
        server_default="false",
        comment="Another replica streams it than the one its messages name.",
    ),
    Column("priority", SmallInteger, nullable=False, server_default="0", comment="0 goes first."),
    Column("background", Boolean, nullable=False, server_default="false"),
    Column("previous_id", Uuid, comment="The request whose conversation it goes on."),
    Column("redriven_from", Uuid, unique=True, comment="The failed request it does again."),
    Column("idempotency_key", Text),
    Column("body_digest", LargeBinary, comment="SHA-256 of the body that the key stands for."),
    Column("answer", Text),
    Column("finish_reason", Text),
    Column("error", JSONB),
    _time("created_at", now=True),
    _time("started_at"),
    _time("finished_at"),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column(
        "cache_digest",
        LargeBinary,
        comment="SHA-256 of what was asked, where the answer may be given again.",
    ),
    Column(
        "conversation_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.conversations.id", ondelete="SET NULL"),
        comment="The conversation that it is a part of.",
    ),
    Column(
        "asked_digest",
        LargeBinary,
        comment="SHA-256 of what was asked, where asking again says something of the answer.",
    ),
    CheckConstraint(f"state IN ({sql_list(RequestState)})", name="state"),
    CheckConstraint(
        f"(state IN ({sql_list(REQUEST_TERMINAL)})) = (finished_at IS NOT NULL)", name="finished"
    ),
    CheckConstraint("state <> 'completed' OR answer IS NOT NULL", name="answered"),
    Index(
        "ix_requests_open_deadline",
        "deadline_at",
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index("ix_requests_tenant_id_created_at", "tenant_id", "created_at"),
    Index(
        "ix_requests_cache_digest",
        "tenant_id",
        "cache_digest",
        "finished_at",
        postgresql_where=text("cache_digest IS NOT NULL"),
    ),
    Index(
        "ix_requests_asked_digest",
        "tenant_id",
        "asked_digest",
        "created_at",
        postgresql_where=text("asked_digest IS NOT NULL"),
    ),
    Index(
        "ix_requests_conversation_id",
        "conversation_id",
        "created_at",
        postgresql_where=text("conversation_id IS NOT NULL"),
    ),
    Index(
        "ix_requests_exchanges",
        "conversation_id",
        "created_at",
        "id",
        postgresql_where=text(
            "conversation_id IS NOT NULL AND question -> 'hidden' IS NULL"
            " AND question ->> 'task' IS NULL"
        ),
    ),
    Index(
        "ix_requests_previous_id",
        "previous_id",
        postgresql_where=text("previous_id IS NOT NULL"),
    ),
    Index(
        "uq_requests_idempotency_key",
        "tenant_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

subtasks = Table(
    "subtasks",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column(
        "request_id", Uuid, ForeignKey(f"{SCHEMA}.requests.id", ondelete="CASCADE"), nullable=False
    ),
    Column("position", Integer, nullable=False, comment="Place of the step in the plan."),
    Column("step", Text, nullable=False, comment="Key of the step in the plan."),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("owner", Text, nullable=False, comment="Tenant and end user: who shares fairly."),
    Column("depends_on", ARRAY(Text), nullable=False, server_default="{}"),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("losses", Integer, nullable=False, server_default="0", comment="Workers it outlived."),
    Column("shown", Text, nullable=False, server_default="", comment="Prefix to go on from."),
    Column(
        "followed",
        Uuid,
        comment="Later execution that its stream follows; `shown` is what was seen before.",
    ),
    Column("execution", Uuid),
    Column("delivery", Integer),
    Column("worker", Text),
    _time("lease_until"),
    Column("text", Text),
    Column("reasoning", Text),
    Column("tool_calls", JSONB),
    Column("logprobs", JSONB),
    Column("finish_reason", Text),
    Column("error", JSONB),
    Column("first_token_seconds", Double),
    _time("created_at", now=True),
    _time("ready_at"),
    _time("queued_at"),
    _time("started_at"),
    _time("finished_at"),
    Column("seen_at", DateTime(timezone=True), comment="A person let this dead subtask be."),
    Column(
        "deadline_at",
        DateTime(timezone=True),
        comment="Given up then, whatever the request does.",
    ),
    UniqueConstraint("request_id", "step"),
    CheckConstraint(f"state IN ({sql_list(SubtaskState)})", name="state"),
    CheckConstraint(
        f"(state IN ({sql_list(SUBTASK_TERMINAL)})) = (finished_at IS NOT NULL)", name="finished"
    ),
    CheckConstraint(
        "(state = 'running') = (lease_until IS NOT NULL)"
        " AND (state <> 'running' OR (execution IS NOT NULL AND started_at IS NOT NULL))",
        name="leased",
    ),
    CheckConstraint("state <> 'queued' OR queued_at IS NOT NULL", name="queued"),
    CheckConstraint(
        "(state = 'blocked') = (ready_at IS NULL) OR finished_at IS NOT NULL", name="ready"
    ),
    CheckConstraint("state <> 'succeeded' OR text IS NOT NULL", name="answered"),
    CheckConstraint("attempt >= 1", name="attempt"),
    Index("ix_subtasks_lease_until", "lease_until", postgresql_where=text("state = 'running'")),
    Index(
        "ix_subtasks_open",
        "model",
        "state",
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_subtasks_deadline_at",
        "deadline_at",
        postgresql_where=text("deadline_at IS NOT NULL AND finished_at IS NULL"),
    ),
    Index("ix_subtasks_dead", "finished_at", postgresql_where=text("state = 'dead'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column(
        "subtask_id",
        Uuid,
        ForeignKey(f"{SCHEMA}.subtasks.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("attempt", Integer, primary_key=True),
    Column("execution", Uuid, primary_key=True),
    _tenant(),
    Column("model", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("outcome", Text, nullable=False, comment="completed, or the code of the failure."),
    Column("applied", Boolean, nullable=False, comment="False: it came too late to count."),
    Column("error", JSONB),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("engine_seconds", Double, nullable=False),
    Column("load_seconds", Double, nullable=False),
    Column("first_token_seconds", Double),
    Column("seams", JSONB, comment="Where another engine went on with the text; null: nowhere."),
    _time("finished_at", now=True),
    Index("ix_attempts_model_finished_at", "model", "finished_at"),
    comment="The ledger: one row for every execution that ended, counted or not.",
)


class JudgementKind(StrEnum):
    """What judged. The kinds that a plan's steps judge by are among them."""

    HUMAN = "human"
    """A person rated, commented or corrected."""
    CHOICE = "choice"
    """A judge compared several answers."""
    REVIEW = "review"
    """A reviewer accepted or rejected a draft."""
    CHECK = "check"
    """A model said how well an answer answers."""
    RETRY = "retry"
    """A person had it answered again."""
    STOP = "stop"
    """A client did not wait for the end."""


class JudgementSource(StrEnum):
    """How a judgement came here."""

    API = "api"
    OPENWEBUI = "openwebui"
    PLAN = "plan"
    SYSTEM = "system"


judgements = Table(
    "judgements",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column(
        "request_id", Uuid, ForeignKey(f"{SCHEMA}.requests.id", ondelete="CASCADE"), nullable=False
    ),
    Column("subtask_id", Uuid, ForeignKey(f"{SCHEMA}.subtasks.id", ondelete="CASCADE")),
    Column("kind", Text, nullable=False),
    Column(
        "rater",
        Text,
        nullable=False,
        comment="Who judged: user:<id> of a person, step:<key> of a judge, system.",
    ),
    Column(
        "subject",
        Text,
        nullable=False,
        server_default="",
        comment="Key of the step that was judged; empty: the answer as a whole.",
    ),
    Column("score", Double, comment="0 to 1; null: nothing that is a number was said."),
    Column(
        "rating",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="As it was given: thumb, stars, scores, passed.",
    ),
    Column("reason", Text),
    Column("comment", Text),
    Column("correction", Text, comment="What the answer should have been."),
    Column("source", Text, nullable=False),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    UniqueConstraint("request_id", "kind", "rater", "subject"),
    CheckConstraint(f"kind IN ({sql_list(JudgementKind)})", name="kind"),
    CheckConstraint(f"source IN ({sql_list(JudgementSource)})", name="source"),
    CheckConstraint("score BETWEEN 0 AND 1", name="score"),
    CheckConstraint("jsonb_typeof(rating) = 'object'", name="rating"),
    CheckConstraint("subtask_id IS NULL OR subject <> ''", name="subject"),
    Index(
        "ix_judgements_subtask_id",
        "subtask_id",
        postgresql_where=text("subtask_id IS NOT NULL"),
    ),
    Index("ix_judgements_tenant_id_updated_at", "tenant_id", "updated_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column(
        "subtask_id", Uuid, ForeignKey(f"{SCHEMA}.subtasks.id", ondelete="CASCADE"), nullable=False
    ),
    Column("attempt", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("available_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column(
        "refused_at",
        DateTime(timezone=True),
        comment="Since when the broker has been refusing it; `last_error` may have other reasons.",
    ),
    _time("created_at", now=True),
    UniqueConstraint("subtask_id", "attempt"),
    Index("ix_outbox_due", "model", "available_at"),
    comment="What is still to be published. A row goes when the broker has confirmed.",
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("release", Text, nullable=False),
    Column("draining", Boolean, nullable=False),
    _time("started_at", now=True),
    _time("last_seen_at", now=True),
    _time("stopped_at"),
    comment="Workers serve every tenant, so they belong to none.",
)
