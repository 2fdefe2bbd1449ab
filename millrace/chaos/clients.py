"""The load: clients of every sort, each of which writes down what it saw."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx2

from millrace.chaos import reading
from millrace.chaos.texts import WAYWARD
from millrace.chaos.visits import Closing, Errand, StreamSeen, Visit

ID_HEADER: Final = "x-millrace-request-id"
_MIX: Final = {
    Errand.STREAM: 5,
    Errand.WHOLE: 3,
    Errand.SPLIT: 2,
    Errand.RESPONSE: 3,
    Errand.POLL: 1,
    Errand.LEAVE: 2,
    Errand.TWICE: 1,
}
_THINGS: Final = ("wheel", "race", "stone", "hopper", "sluice", "spindle", "weir", "bolter")
_CHAT: Final = reading.take_chat
_PAUSE_SECONDS: Final = 0.3
_SILENT_SECONDS: Final = 40.0
"""Longer than four keep-alives of a stream."""


class Load:
    """So many clients, one request after another each, until told to stop."""

    def __init__(self, urls: Sequence[str], key: str, model: str, seed: int) -> None:
        self.visits: list[Visit] = []
        self._urls = urls
        self._model = model
        self._seed = seed
        self._stop = asyncio.Event()
        self._streaming: dict[asyncio.Task[None], Visit] = {}
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(_SILENT_SECONDS, connect=5.0),
            limits=httpx2.Limits(max_connections=None),
            trust_env=False,
        )

    async def run(self, clients: int) -> None:
        """Run until told to stop and every client has its answer."""
        async with self._http:
            await asyncio.gather(*(self._client(number) for number in range(clients)))

    def stop(self) -> None:
        """No new requests; those that were made are followed to their end."""
        self._stop.set()

    def leave(self, dice: random.Random) -> int:
        """Have some of the clients that read a chat go away; gives how many."""
        able = [task for task, visit in self._streaming.items() if not visit.left]
        chosen = dice.sample(able, dice.randint(1, len(able))) if able else []
        for task in chosen:
            self._streaming[task].left = True
            task.cancel()
        return len(chosen)

    async def _client(self, number: int) -> None:
        for turn in itertools.count():
            if self._stop.is_set():
                return
            dice = random.Random(f"{self._seed}/{number}/{turn}")
            errand = dice.choices(list(_MIX), list(_MIX.values()))[0]
            visit = Visit(errand, _prompt(errand, f"{number}-{turn}", dice), time.monotonic())
            self.visits.append(visit)
            await self._serve(visit, dice)
            await asyncio.sleep(dice.uniform(0.0, 0.4))

    async def _serve(self, visit: Visit, dice: random.Random) -> None:
        match visit.errand:
            case Errand.STREAM | Errand.SPLIT:
                await self._chat(visit, dice, None)
            case Errand.LEAVE:
                await self._chat(visit, dice, dice.randint(0, 10))
            case Errand.RESPONSE:
                await self._response(visit, dice)
            case Errand.POLL:
                await self._poll(visit, dice)
            case Errand.WHOLE:
                visit.key = f"key-{self._seed}-{visit.prompt}".replace(" ", "-")
                await self._whole(visit, dice)
            case Errand.TWICE:
                await self._twice(visit, dice)

    # --- chats -----------------------------------------------------------------------------------

    async def _chat(self, visit: Visit, dice: random.Random, leave_after: int | None) -> None:
        """A streamed chat; when its stream breaks, the rest comes from the request's events."""
        task = asyncio.create_task(self._chat_to_its_end(visit, dice, leave_after))
        self._streaming[task] = visit
        try:
            await asyncio.wait({task})
        finally:
            del self._streaming[task]
            task.cancel()
        if not task.cancelled():
            task.result()

    async def _chat_to_its_end(
        self, visit: Visit, dice: random.Random, leave_after: int | None
    ) -> None:
        body = {**_chat_body(visit, self._model), "stream": True}
        for url in self._masters(dice):
            if await self._open(visit, url, body, leave_after):
                break
            if self._stop.is_set():
                return
        for url in self._masters(dice):
            if visit.state or visit.left:
                return
            query = {"starting_after": str(len(visit.text))}
            path = f"/v1/requests/{visit.request}/events"
            await self._read(visit, "GET", url + path, reading.take_event, params=query)

    async def _open(
        self, visit: Visit, url: str, body: dict[str, Any], leave_after: int | None
    ) -> bool:
        where = f"{url}/v1/chat/completions"
        await self._read(visit, "POST", where, _CHAT, json=body, leave_after=leave_after)
        return visit.request is not None

    async def _whole(self, visit: Visit, dice: random.Random) -> None:
        """A chat in one piece. Its key makes it safe to ask until there is an answer."""
        headers = {"Idempotency-Key": visit.key} if visit.key else {}
        for url in self._masters(dice):
            where = f"{url}/v1/chat/completions"
            body = _chat_body(visit, self._model)
            answer = await self._ask(visit, "POST", where, json=body, headers=headers)
            if answer is not None and self._take_whole(visit, answer):
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _take_whole(self, visit: Visit, answer: httpx2.Response) -> bool:
        """Whether this is the end of the request."""
        visit.request = answer.headers.get(ID_HEADER) or visit.request
        said = answer.json()
        if answer.status_code == 200:
            visit.text = said["choices"][0]["message"]["content"]
            visit.state = "completed"
        elif answer.headers.get(ID_HEADER) and said["error"]["code"] != reading.DRAINING:
            visit.state = {409: "cancelled", 504: "expired"}.get(answer.status_code, "failed")
            visit.code = said["error"]["code"]
        else:
            _refused(visit, answer)
            return False
        visit.seconds = time.monotonic() - visit.began_at
        return True

    async def _twice(self, visit: Visit, dice: random.Random) -> None:
        """Two clients send the same request with the same key to two masters at once."""
        visit.key = f"key-{self._seed}-{visit.prompt}".replace(" ", "-")
        twin = Visit(visit.errand, visit.prompt, visit.began_at, key=visit.key)
        self.visits.append(twin)
        other = random.Random(dice.getrandbits(32))
        await asyncio.gather(self._whole(visit, dice), self._whole(twin, other))

    # --- responses -------------------------------------------------------------------------------

    async def _response(self, visit: Visit, dice: random.Random) -> None:
        """A background response, read to its end on whichever master answers."""
        events = reading.Responses()
        body = {"model": self._model, "input": visit.prompt, "background": True, "stream": True}
        for url in self._masters(dice):
            if visit.request is None:
                where = f"{url}/v1/responses"
                await self._read(visit, "POST", where, events.take, json=body)
                if visit.request is None and self._stop.is_set():
                    return
            else:
                query = {"stream": "true"}
                if events.cursor >= 0:
                    query["starting_after"] = str(events.cursor)
                where = f"{url}/v1/responses/{_response_id(visit)}"
                await self._read(visit, "GET", where, events.take, params=query)
            if visit.state:
                return

    async def _poll(self, visit: Visit, dice: random.Random) -> None:
        """A background response that is looked at until it has ended."""
        body = {"model": self._model, "input": visit.prompt, "background": True}
        for url in self._masters(dice):
            if visit.request is None:
                answer = await self._ask(visit, "POST", f"{url}/v1/responses", json=body)
                if answer is not None and answer.status_code == 200:
                    visit.request = answer.headers[ID_HEADER]
                elif self._stop.is_set():
                    return
            else:
                where = f"{url}/v1/responses/{_response_id(visit)}"
                answer = await self._ask(visit, "GET", where)
                if answer is not None and answer.status_code == 200:
                    self._take_poll(visit, answer.json())
                if visit.state:
                    return
            if answer is not None and answer.status_code != 200:
                _refused(visit, answer)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _take_poll(self, visit: Visit, said: dict[str, Any]) -> None:
        visit.polled.append(said["status"])
        if said["status"] in {"queued", "in_progress"}:
            return
        visit.state = said["status"]
        visit.code = (said["error"] or {}).get("code")
        visit.text = "".join(
            part["text"] for item in said["output"] for part in item.get("content", ())
        )
        visit.seconds = time.monotonic() - visit.began_at

    # --- one HTTP exchange -----------------------------------------------------------------------

    def _masters(self, dice: random.Random) -> "_Round":
        return _Round(self._urls, dice)

    async def _ask(self, visit: Visit, method: str, url: str, **sent: Any) -> Any:
        """One exchange; None where the connection failed."""
        try:
            return await self._http.request(method, url, **sent)
        except httpx2.HTTPError:
            visit.refusals += 1
            return None

    async def _read(
        self,
        visit: Visit,
        method: str,
        url: str,
        take: reading.Take,
        *,
        leave_after: int | None = None,
        **sent: Any,
    ) -> None:
        """Read one stream to its end, or until the client has enough of it."""
        stream: StreamSeen | None = None
        asked_at = time.monotonic()
        try:
            async with self._http.stream(method, url, **sent) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    _refused(visit, answer)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    return
                visit.request = answer.headers.get(ID_HEADER) or visit.request
                done = 0 if take is _CHAT else None
                stream = StreamSeen(_master(url), done=done, asked_at=asked_at)
                visit.streams.append(stream)
                async for line in answer.aiter_lines():
                    _take(visit, stream, line, take)
                    if leave_after is not None and len(visit.text.split()) > leave_after:
                        visit.left = True
                        break
            _close(stream, Closing.LEFT if visit.left else Closing.CLEAN)
        except httpx2.HTTPError as error:
            visit.refusals += stream is None
            _close(stream, Closing.CUT, repr(error))
            await asyncio.sleep(_PAUSE_SECONDS)
        except asyncio.CancelledError:
            _close(stream, Closing.LEFT)
            raise


class _Round:
    """The masters in turn, from a random one on, without end."""

    def __init__(self, urls: Sequence[str], dice: random.Random) -> None:
        self._turns = itertools.cycle(urls)
        for _ in range(dice.randrange(len(urls))):
            next(self._turns)

    def __iter__(self) -> "_Round":
        return self

    def __next__(self) -> str:
        return next(self._turns)


def _refused(visit: Visit, answer: httpx2.Response) -> None:
    """Note a refusal. "Too many" and "not now" are in order; a client cannot mend any other."""
    visit.refusals += 1
    if answer.status_code not in {429, 503}:
        visit.odd.append(f"refused with {answer.status_code}: {answer.text[:200]}")


def _take(visit: Visit, stream: StreamSeen, line: str, take: reading.Take) -> None:
    before = len(visit.text)
    try:
        take(visit, stream, line)
    except (ValueError, LookupError, TypeError) as error:
        visit.odd.append(f"{error!r} at {line[:100]!r}")
    if visit.first_text_seconds is None and len(visit.text) > before:
        visit.first_text_seconds = time.monotonic() - visit.began_at
    if visit.seconds is None and visit.state:
        visit.seconds = time.monotonic() - visit.began_at


def _master(url: str) -> str:
    return url.partition("/v1/")[0]


def _close(stream: StreamSeen | None, closing: Closing, reason: str = "") -> None:
    if stream is not None and stream.closing is None:
        stream.closing, stream.reason = closing, reason
        stream.closed_at = time.monotonic()


def _prompt(errand: Errand, turn: str, dice: random.Random) -> str:
    if errand is Errand.SPLIT:
        things = dice.sample(_THINGS, 3)
        lines = (f"{n}. What is a {t}, for client {turn}?" for n, t in enumerate(things, start=1))
        return "\n".join(lines)
    wayward = f" {WAYWARD}" if errand in {Errand.STREAM, Errand.RESPONSE} else ""
    return f"Why{wayward if dice.random() < 0.4 else ''} {turn}?"


def _chat_body(visit: Visit, model: str) -> dict[str, Any]:
    split = visit.errand is Errand.SPLIT
    return {
        "model": "millrace/split" if split else model,
        "messages": [{"role": "user", "content": visit.prompt}],
    }


def _response_id(visit: Visit) -> str:
    return f"resp_{str(visit.request).replace('-', '')}"
