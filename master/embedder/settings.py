"""Settings of an embedder process, checked together at start."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from bus.trace_settings import TraceSettings


class EmbedderSettings(TraceSettings):
    """Read from the environment with the prefix `MILLRACE_EMBEDDER_`; seconds everywhere."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_EMBEDDER_", extra="ignore", frozen=True)

    model: str = Field(default="all-MiniLM-L6-v2", min_length=1, description="What clients see.")
    path: str | None = Field(default=None, description="Folder of the model; none: by its name.")
    cross_encoder: str | None = Field(
        default=None, description="Name or folder of a model that reranks; none: no /rerank."
    )
    download: bool = Field(
        default=False, description="Fetch models that are not on this machine from their hub."
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8001, ge=0, le=65535)
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="Of the CPU; none: all, and at most four."
    )
    batch_size: int = Field(default=32, ge=1, le=2048, description="Texts in one run of the model.")
    linger_seconds: float = Field(
        default=0.003, ge=0, le=1, description="That a text waits for others to be run with it."
    )
    max_texts: int = Field(default=256, ge=1, le=2048, description="Texts in one request.")
    max_characters: int = Field(default=32_768, ge=1, le=1_000_000, description="Of one text.")
    max_waiting: int = Field(default=2048, ge=1, description="Waiting texts; beyond, 503.")
    drain_seconds: float = Field(
        default=20.0, ge=0, description="Time that running requests get after SIGTERM."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_waiting < self.max_texts:
            raise ValueError(
                "MILLRACE_EMBEDDER_MAX_WAITING must be at least MILLRACE_EMBEDDER_MAX_TEXTS "
                f"({self.max_texts}), or the largest request is never taken"
            )
        return self
