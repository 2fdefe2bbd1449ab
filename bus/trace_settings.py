"""The settings of tracing, which every process has."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

OTLP = "otlp"
FILE = "file:"
_OFF = frozenset({"", "off", "0", "false", "no", "none"})
_REMEDY = "must be off, otlp, the URL of an OTLP endpoint (http://…) or file:PATH"


class TraceSettings(BaseSettings):
    """`MILLRACE_TRACING` and `MILLRACE_TRACING_SHARE`."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    tracing: str | None = Field(
        default=None,
        validation_alias="MILLRACE_TRACING",
        description="Where spans go: off, otlp, the URL of an OTLP endpoint, or file:PATH.",
    )
    tracing_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias="MILLRACE_TRACING_SHARE",
        description="Of the requests that belong to no client's trace.",
    )

    @field_validator("tracing")
    @classmethod
    def _known(cls, setting: str | None) -> str | None:
        if setting is None or setting.strip().lower() in _OFF:
            return None
        setting = setting.strip()
        if setting.lower() == OTLP:
            return OTLP
        if not (_is_file(setting) or _is_url(setting)):
            raise ValueError(_REMEDY)
        return setting


def _is_file(setting: str) -> bool:
    path = setting.removeprefix(FILE)
    return path != setting and "\0" not in path and Path(path).name != ""


def _is_url(setting: str) -> bool:
    try:
        parts = urlsplit(setting)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
