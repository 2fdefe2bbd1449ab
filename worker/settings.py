"""Settings of a worker process, checked together at start."""

import os
import re
import secrets
import socket
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from bus.trace_settings import TraceSettings
from queue_schemas.codec import KeyRing
from queue_schemas.topology import CONSUMER_TIMEOUT_SECONDS

_POD = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


def _worker_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:80]
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerSettings(TraceSettings):
    """Read from the environment with the prefix `MILLRACE_WORKER_`; seconds everywhere."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_WORKER_", extra="ignore", frozen=True, populate_by_name=True
    )

    name: str = Field(default_factory=_worker_name, pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    queue_key: SecretStr | None = Field(
        default=None,
        validation_alias="MILLRACE_QUEUE_KEY",
        description="Signs messages. Several, separated by commas, while it is changed.",
    )
    offline: bool = Field(
        default=False,
        validation_alias="MILLRACE_OFFLINE",
        description="Leaves engines out that the registry calls remote.",
    )
    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        validation_alias="MILLRACE_HEALTH_PORT",
        description="For /live, /ready and /metrics; 0: nobody can ask.",
    )
    health_host: str = Field(
        default="127.0.0.1", min_length=1, validation_alias="MILLRACE_HEALTH_HOST"
    )
    pod_deletion_cost: bool = Field(
        default=False,
        validation_alias="MILLRACE_POD_DELETION_COST",
        description="Tell Kubernetes that a busy pod should go last. Needs the name of the pod.",
    )
    pod_name: str | None = Field(default=None, validation_alias="POD_NAME", pattern=_POD)
    pod_namespace: str | None = Field(default=None, validation_alias="POD_NAMESPACE", pattern=_POD)
    parent: int | None = Field(
        default=None, gt=0, description="Process id; drains when its parent is another one."
    )
    log_prompts: bool = Field(
        default=False,
        validation_alias="MILLRACE_LOG_PROMPTS",
        description="Log prompts and answers too, cut at 4000 characters.",
    )
    heartbeat_seconds: float = Field(default=5.0, gt=0, description="Renews leases.")
    drain_seconds: float = Field(
        default=600.0, ge=0, description="Time that running subtasks get after SIGTERM."
    )
    coalesce_seconds: float = Field(
        default=0.025, ge=0, le=1, description="At most one chunk of a stream in this time."
    )
    check_seconds: float = Field(
        default=30.0, gt=0, description="Longest pause between two looks at a sick engine."
    )
    sick_after: int = Field(
        default=3, ge=1, description="Engine failures in a row until it is checked again."
    )
    cancelled_seconds: float = Field(
        default=900.0, gt=0, description="How long a cancelled subtask is remembered."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.coalesce_seconds >= self.heartbeat_seconds:
            raise ValueError(
                "MILLRACE_WORKER_COALESCE_SECONDS must be smaller than a heartbeat "
                f"({self.heartbeat_seconds:g}), or leases expire while text waits"
            )
        if self.drain_seconds > CONSUMER_TIMEOUT_SECONDS:
            raise ValueError(
                "MILLRACE_WORKER_DRAIN_SECONDS must not exceed the broker's consumer timeout "
                f"({CONSUMER_TIMEOUT_SECONDS}), which gives the subtasks to somebody else"
            )
        return self

    @model_validator(mode="after")
    def _knows_its_pod(self) -> Self:
        if self.pod_deletion_cost and not (self.pod_name and self.pod_namespace):
            raise ValueError(
                "MILLRACE_POD_DELETION_COST needs POD_NAME and POD_NAMESPACE; have the pod's "
                "metadata.name and metadata.namespace put there"
            )
        return self

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
