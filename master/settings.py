"""Settings of the master process, checked together at start."""

import os
import secrets
import socket
from enum import StrEnum
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from bus.trace_settings import TraceSettings
from master.learning.settings import LearningSettings
from master.retrieval.rerankers import registry as rerankers
from queue_schemas.codec import KeyRing

MOST_CACHE_SECONDS = 30 * 24 * 3600


def _replica_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class IngestSettings(LearningSettings, TraceSettings):
    """What batch work needs, ingestion above all: of a master by itself, or of Celery workers."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(validation_alias="DATABASE_URL")
    celery_broker_url: SecretStr | None = Field(
        default=None,
        description="Broker of the Celery workers, a vhost of its own. None: masters ingest.",
    )
    ingest_lease_seconds: float = Field(
        default=60.0, gt=0, description="Silence until somebody else takes a document."
    )
    ingest_seconds: float = Field(
        default=5.0, gt=0, description="Between two looks at what waits to be ingested."
    )
    ingest_sweep_seconds: float = Field(
        default=15.0, gt=0, description="Between two sweeps of `millrace celery --beat`."
    )
    ingest_at_once: int = Field(default=2, ge=1, le=64, description="Documents, in one process.")
    ingest_batch: int = Field(
        default=32, ge=1, le=512, description="Chunks that are embedded at once."
    )
    ingest_max_attempts: int = Field(default=5, ge=1, description="Of a document.")
    ingest_retry_seconds: float = Field(
        default=5.0, gt=0, description="Before the second attempt; then longer each time."
    )
    fetch_private: bool = Field(
        default=False, description="Whether URLs of this machine and of private networks are read."
    )
    max_document_bytes: int = Field(default=50_000_000, ge=1, le=500_000_000)

    @field_validator("celery_broker_url")
    @classmethod
    def _amqp(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        if not url.get_secret_value().startswith(("amqp://", "amqps://")):
            raise ValueError("must begin with amqp:// or amqps://; quorum queues need RabbitMQ")
        return url


class CelerySettings(IngestSettings):
    """What a Celery worker needs besides."""

    metrics_port: int = Field(default=0, ge=0, le=65535, description="For /metrics; 0: none.")
    metrics_host: str = Field(default="127.0.0.1", min_length=1)


class RoutingMode(StrEnum):
    """Who decides which model answers where no client and no rule does."""

    FIXED = "fixed"
    """The registry alone."""
    LEARNED = "learned"
    """People's judgements, where enough of them say that another one is better."""


class MasterSettings(IngestSettings):
    """Read from the environment with the prefix `MILLRACE_`; seconds everywhere."""

    replica: str = Field(default_factory=_replica_name, pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    console: bool = Field(default=True, description="Whether there are pages at /console.")
    database_pool: int = Field(default=10, ge=1, le=200)
    queue_key: SecretStr | None = Field(
        default=None,
        description="Signs messages. Several, separated by commas, while it is changed.",
    )

    request_seconds: float = Field(default=900.0, gt=0, description="Deadline of a request.")
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=5.0, gt=0, description="What workers are told to do.")
    sweep_seconds: float = Field(default=1.0, gt=0)
    dispatch_seconds: float = Field(
        default=0.25, gt=0, description="Between two looks at the outbox."
    )
    fleet_seconds: float = Field(default=1.0, gt=0)
    forgotten_seconds: float = Field(
        default=60.0, gt=0, description="Queued for so long with an empty queue: publish again."
    )
    keep_alive_seconds: float = Field(default=10.0, gt=0, description="Between SSE comments.")
    slow_consumer_seconds: float = Field(
        default=30.0, gt=0, description="Time that a client may take nothing of its stream."
    )
    slow_consumer_characters: int = Field(
        default=65_536, ge=0, description="That may wait for a client, however long it takes."
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, description="Time that open streams get after SIGTERM."
    )
    cache_seconds: float = Field(
        default=0.0,
        ge=0,
        le=MOST_CACHE_SECONDS,
        description="How old an answer to the same question may be; a body's `cache` overrides.",
    )
    key_cache_seconds: float = Field(default=5.0, ge=0, description="A revoked key works so long.")
    window: int = Field(
        default=2, ge=1, description="Depth of a model's queue, in generations of its max workers."
    )
    max_backlog: int = Field(
        default=5000, ge=1, description="Waiting subtasks of a model until newcomers get 429."
    )
    max_unpublished_seconds: float = Field(
        default=60.0, gt=0, description="Broker away for so long: newcomers get 503."
    )
    max_upload_bytes: int = Field(
        default=100_000_000, ge=1, description="Of one request with documents."
    )
    reranker: str = Field(
        default="lexical", description="lexical, cross-encoder:NAME_OR_FOLDER, or a URL."
    )
    reranker_key: SecretStr | None = Field(default=None, description="Key of a reranker's URL.")
    openwebui_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+",
        description="Open WebUI whose users' ratings are read; none: nothing is read.",
    )
    openwebui_api_key: SecretStr | None = Field(
        default=None, description="Key of one of its administrators."
    )
    openwebui_tenant: str | None = Field(
        default=None, description="Whose chats are rated there; none: of the only tenant."
    )
    openwebui_seconds: float = Field(
        default=30.0, gt=0, description="Between two looks at its ratings."
    )
    feedback_seconds: float = Field(
        default=15.0, gt=0, description="Between two looks into the inbox of feedback."
    )
    routing: RoutingMode = Field(
        default=RoutingMode.LEARNED, description="fixed, or learned from what people say."
    )
    explore_share: float = Field(
        default=0.0, ge=0, le=0.5, description="Of the questions, to find out which model is best."
    )
    memory_window: int = Field(
        default=5, ge=0, le=100, description="Last exchanges of a conversation that are shown."
    )
    memory_recall: bool = Field(
        default=False, description="Look for what was said elsewhere; a body's `memory` overrides."
    )
    memory_recall_score: float = Field(
        default=0.4, ge=0, le=1, description="Similarity from which on something is recalled."
    )
    memory_seconds: float = Field(
        default=5.0, gt=0, description="Between two looks at what is to be summarised or embedded."
    )
    max_attempts: int = Field(default=5, ge=1)
    max_losses: int = Field(default=3, ge=1, description="Worker deaths until a subtask is poison.")
    retries_per_minute: float = Field(
        default=120.0, gt=0, description="Of one model; beyond, retries wait longer."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                "MILLRACE_LEASE_SECONDS must be at least three heartbeats "
                f"({3 * self.heartbeat_seconds:g}), or one lost heartbeat costs a lease"
            )
        if self.max_upload_bytes < self.max_document_bytes:
            raise ValueError(
                "MILLRACE_MAX_UPLOAD_BYTES must be at least MILLRACE_MAX_DOCUMENT_BYTES "
                f"({self.max_document_bytes}), or no document of that size can be sent"
            )
        return self

    @model_validator(mode="after")
    def _openwebui_has_a_key(self) -> Self:
        if (self.openwebui_url is None) != (self.openwebui_api_key is None):
            raise ValueError(
                "MILLRACE_OPENWEBUI_URL and MILLRACE_OPENWEBUI_API_KEY must be set together"
            )
        return self

    @field_validator("openwebui_url", "openwebui_api_key", "openwebui_tenant", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("reranker")
    @classmethod
    def _known_reranker(cls, setting: str) -> str:
        if not rerankers.is_known(setting):
            raise ValueError(f"must be one of: {rerankers.KNOWN}")
        return setting

    @field_validator("queue_key")
    @classmethod
    def _strong(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            KeyRing.parse(key.get_secret_value())
        return key

    @property
    def key_ring(self) -> KeyRing | None:
        """The queue keys; the first signs."""
        return KeyRing.parse(self.queue_key.get_secret_value()) if self.queue_key else None
