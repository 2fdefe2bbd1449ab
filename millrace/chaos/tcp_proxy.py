"""A TCP proxy on loopback that fails on command."""

import asyncio
import contextlib
from typing import Self


class TcpProxy:
    """Forwards to one address until told to cut connections, to swallow or to delay what passes."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._delay_seconds = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests_pass = asyncio.Event()
        self._replies_pass = asyncio.Event()
        self.release()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("the proxy is not listening")
        return int(self._server.sockets[0].getsockname()[1])

    def hold(self) -> None:
        """Let nothing through, either way; connections stay open."""
        self._requests_pass.clear()
        self._replies_pass.clear()

    def hold_replies(self) -> None:
        """Let requests through, and no reply."""
        self._replies_pass.clear()

    def delay(self, seconds: float) -> None:
        """Keep each piece back for so long, both ways, and the pieces in their order."""
        self._delay_seconds = seconds

    def release(self) -> None:
        """Let everything through at once, also what was held."""
        self._delay_seconds = 0.0
        self._requests_pass.set()
        self._replies_pass.set()

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                upstream, to_upstream = await asyncio.open_connection(*self._target)
                ends.add(to_upstream)
                self._writers.add(to_upstream)
                await asyncio.wait(
                    {
                        asyncio.ensure_future(self._pump(reader, to_upstream, self._requests_pass)),
                        asyncio.ensure_future(self._pump(upstream, writer, self._replies_pass)),
                    },
                )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await gate.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()
