"""What a server process logs: lines for people on a terminal, JSON elsewhere, always on stderr.

With a folder it also writes JSON into a file there, which `millrace logs` reads.
"""

import logging
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from structlog.typing import EventDict, Processor, WrappedLogger

from bus import tracing
from millrace.log_files import SUFFIX, LogFile
from millrace.log_text import as_json, for_people
from millrace.problems import Problem, reason


class Level(StrEnum):
    """From which importance on events are logged."""

    DEBUG = "debug"
    """Each subtask's way as well."""
    INFO = "info"
    """Each request, and what changes in the installation."""
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """As the standard library has it."""
        return int(getattr(logging, self.name))


class Format(StrEnum):
    """What lines look like on stderr."""

    AUTO = "auto"
    """`console` on a terminal, else `json`."""
    JSON = "json"
    CONSOLE = "console"


class LogSettings(BaseSettings):
    """Read from the environment with the prefix `MILLRACE_LOG_`."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_LOG_", extra="ignore", frozen=True)

    level: Level = Level.INFO
    format: Format = Format.AUTO
    folder: Path | None = Field(
        default=None, description="Also write JSON into files there; none: no files."
    )
    file_level: Level = Field(default=Level.DEBUG, description="What the files have.")
    file_bytes: int = Field(
        default=20_000_000, ge=10_000, description="Of a file, until it becomes the old one."
    )

    @field_validator("folder", mode="before")
    @classmethod
    def _empty_is_none(cls, folder: object) -> object:
        return folder or None


def configure(
    process: str,
    *,
    debug: bool = False,
    quiet: bool = False,
    file: str | None = None,
    settings: LogSettings | None = None,
) -> None:
    """Set structlog up for this process, and send the libraries' warnings the same way.

    `quiet` leaves only warnings, for commands whose output is for a person, and writes no file
    unless one is named. `file` is its name, if it is not the process's. Raises `Problem`.
    """
    settings = settings or LogSettings()
    level = Level.DEBUG if debug else Level.WARNING if quiet else settings.level
    log_file = None if quiet and file is None else _file(settings, file or process)
    shared = said_of_all(process)
    render = _renderer(settings.format)
    last: Processor = _Tee(log_file, settings.file_level, level, render) if log_file else render
    lowest = min(level.number, settings.file_level.number) if log_file else level.number
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _take_over_libraries(shared, render, log_file, level)


def said_of_all(process: str) -> list[Processor]:
    """What every line goes through before it is written."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _Origin(process),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_values,
    ]


def _file(settings: LogSettings, name: str) -> LogFile | None:
    if settings.folder is None:
        return None
    try:
        return LogFile(settings.folder / f"{name}{SUFFIX}", settings.file_bytes)
    except OSError as error:
        raise Problem(f"cannot write logs to {settings.folder}: {reason(error)}.") from error


def _renderer(wanted: Format) -> Processor:
    on_terminal = wanted is Format.AUTO and sys.stderr.isatty()
    if wanted is not Format.CONSOLE and not on_terminal:
        return _as_json
    # Its own way with exceptions shows the variables of each frame, prompts among them.
    return for_people(
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )


def _as_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return as_json(event).decode()


class _Origin:
    """Says which process and which trace a line is of."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = self._process
        # Empty: it is of no trace that is recorded, whatever is in force here.
        trace = event.pop("trace") if "trace" in event else tracing.current_trace_id()
        if trace:
            event["trace"] = trace
        return event


# What a database and a validation say of values: whole rows, and pieces of what was sent.
_VALUES = re.compile(
    r"(?P<detail>DETAIL:).*?(?=\n\[SQL|\nHINT:|\n\nThe above|\n\nDuring|\Z)"
    r"|(?P<input>\[?input_value=).*?(?=, input_type=)",
    re.DOTALL,
)


def without_values(text: str) -> str:
    """What an exception says, without the values that it says it of."""
    if "DETAIL:" not in text and "input_value=" not in text:
        return text
    return _VALUES.sub(lambda found: f"{found['detail'] or found['input']} …", text)


def _without_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in ("exception", "error", "reason", "event"):
        said = event.get(name)
        if isinstance(said, str):
            event[name] = without_values(said)
    return event


class _Tee:
    """The last processor where there is a file: each place gets what it is to have."""

    def __init__(self, file: LogFile, file_level: Level, level: Level, render: Processor) -> None:
        self._file = file
        self._to_file = file_level.number
        self._to_stderr = level.number
        self._render = render

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> Any:
        number = structlog.processors.NAME_TO_LEVEL[name]
        if number >= self._to_file:
            self._file.write(as_json(event))
        if number < self._to_stderr:
            raise structlog.DropEvent
        return self._render(logger, name, event)


def _take_over_libraries(
    shared: list[Processor], render: Processor, file: LogFile | None, level: Level
) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(_formatter(shared, render))
    handlers[0].setLevel(level.number)
    if file is not None:
        handlers.append(_FileHandler(file))
        handlers[1].setFormatter(_formatter(shared, _as_json))
    # Who called says it better, and once: "cannot reach RabbitMQ at …".
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)


def _formatter(shared: list[Processor], last: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )


class _FileHandler(logging.Handler):
    """What libraries say, into the file."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._file.write(self.format(record).encode(errors="replace"))
