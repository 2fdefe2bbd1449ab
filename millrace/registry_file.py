"""A registry that follows its file."""

import asyncio
from pathlib import Path

import structlog

from millrace import models_file
from queue_schemas.registry import Registry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RegistryFile:
    """`current` is the last good content; a broken file changes nothing and is logged once."""

    def __init__(self, path: Path) -> None:
        """Raises `ModelsFileError`: at start, a broken file is not survived."""
        self.path = path
        self._seen = self._stamp()
        self.current: Registry = models_file.load(path)

    def refresh(self) -> bool:
        """Read the file if it was changed; whether there is a new registry."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            fresh = models_file.load(self.path)
        except models_file.ModelsFileError as error:
            _log.error("registry.rejected", file=str(self.path), error=str(error))
            return False
        changed = fresh != self.current
        self.current = fresh
        if changed:
            _log.info("registry.reloaded", file=str(self.path), models=len(fresh.models))
        return changed

    async def watch(self, every_seconds: float = 2.0) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            # The file may be a ConfigMap on a slow volume; reading it must not stop the loop.
            await asyncio.to_thread(self.refresh)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        # Kubernetes swaps a symbolic link, so the inode may be all that changes.
        return found.st_mtime_ns, found.st_size, found.st_ino
