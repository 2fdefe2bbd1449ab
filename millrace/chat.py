"""A chat in the terminal: questions, commands, and what they change. Without reading lines."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from millrace import past_chats
from millrace.client import Answer, Master
from millrace.conversation import ask_live, ask_plain, pick_model
from millrace.problems import Problem, one_line
from millrace.question import Strategy, body
from millrace.show.conversations import conversations_table, summary_lines, title, transcript
from queue_schemas.registry import RESERVED_PREFIX

_NEW = "new"
_LISTED = 20

HELP = """\
/strategy [NAME]   how questions are answered: {strategies}
/model [NAME]      ask this model directly; without a name: which there are
/new               begin another conversation
/history           what was said in this one
/list              the conversations that were used last
/open ID           go on with one of them; the number that /list shows will do
/rate + | - [WHY]  say how good the last answer was
/quit              end, as Ctrl-D does; Ctrl-C stops an answer""".format(
    strategies=", ".join(Strategy)
)


@dataclass
class Chat:
    """One person's chat with one master."""

    master: Master
    console: Console
    strategy: Strategy = Strategy.AUTO
    model: str | None = None
    conversation: str | None = None
    collection: str | None = None
    user: str | None = None
    recall: bool = False
    last_request: str | None = None
    ended: bool = False
    _listed: list[past_chats.Conversation] = field(default_factory=list)

    async def open(self, wanted: str) -> None:
        """Go on with a conversation. Raises `Problem` if there is none."""
        found = await past_chats.find(self.master, self._meant(wanted), self.user)
        self.conversation, self.last_request = found["id"], None
        self.say(f"Going on with {title(found)!r} ({found['id']}).")

    async def take(self, line: str) -> None:
        """Carry out a line: a command, or a question. Raises `Problem`."""
        line = line.strip()
        if not line:
            return
        if not line.startswith("/"):
            await self._ask(line)
            return
        name, _, rest = line[1:].partition(" ")
        command = self._commands().get(name)
        if command is None:
            raise Problem(f"there is no command /{one_line(name, 40)}; /help lists them.")
        await command(rest.strip())

    @property
    def asks(self) -> str:
        """Who is asked."""
        return self.model or f"{RESERVED_PREFIX}{self.strategy}"

    def say(self, words: str) -> None:
        """Tell a person something that is no answer; scripts do not want to read that."""
        if self.console.is_terminal:
            self.console.print(Text(words, "dim"))

    def _commands(self) -> Mapping[str, Callable[[str], Awaitable[None]]]:
        return {
            "help": self._help,
            "strategy": self._choose_strategy,
            "model": self._choose_model,
            "new": self._new,
            "history": self._history,
            "list": self._list,
            "open": self._open,
            "rate": self._rate,
            "quit": self._quit,
        }

    async def _ask(self, question: str) -> None:
        model = await pick_model(self.master, self.strategy, self.model)
        asked = body(model, question) | self._more()
        if self.console.is_terminal:
            await ask_live(self.master, asked, self.console, began=self._began)
        else:
            await ask_plain(self.master, asked, began=self._began)

    def _more(self) -> dict[str, Any]:
        more: dict[str, Any] = {"conversation": self.conversation or _NEW}
        if self.user:
            more["user"] = self.user
        if self.recall:
            more["memory"] = {"recall": True}
        if self.collection:
            only = self.strategy is Strategy.RAG and self.model is None
            more["retrieval"] = {"collection": self.collection, "only": only}
        return more

    def _began(self, answer: Answer) -> None:
        self.last_request = answer.request_id
        self.conversation = answer.conversation or self.conversation

    async def _help(self, _: str) -> None:
        self.console.print(Text(HELP))

    async def _choose_strategy(self, name: str) -> None:
        if not name:
            self.console.print(Text(f"Asking {self.asks}. There are: {', '.join(Strategy)}."))
            return
        try:
            self.strategy, self.model = Strategy(name), None
        except ValueError:
            known = ", ".join(Strategy)
            raise Problem(f"there is no strategy {one_line(name, 40)!r}; use {known}.") from None
        self.say(f"Asking {self.asks} from now on.")

    async def _choose_model(self, name: str) -> None:
        entries = (await self.master.get("/v1/models"))["data"]
        known = [str(entry["id"]) for entry in entries]
        if not name:
            self.console.print(Text(f"Asking {self.asks}. There are: {', '.join(known)}."))
            return
        if name not in known:
            raise Problem(f"there is no model {one_line(name, 80)!r}; /model lists them.")
        self.model = name
        self.say(f"Asking {self.asks} from now on.")

    async def _new(self, _: str) -> None:
        self.conversation = self.last_request = None
        self.say("A new conversation.")

    async def _history(self, _: str) -> None:
        if self.conversation is None:
            self.say("Nothing was said yet.")
            return
        found = await past_chats.find(self.master, self.conversation, self.user)
        said = await past_chats.messages(self.master, found["id"], self.user)
        for line in [*summary_lines(found), *transcript(said)]:
            self.console.print(line, highlight=False)

    async def _list(self, _: str) -> None:
        self._listed = await past_chats.first(self.master, self.user, _LISTED)
        if self._listed:
            self.console.print(conversations_table(self._listed, numbered=True))
        else:
            self.say("There is no conversation yet.")

    async def _open(self, wanted: str) -> None:
        if not wanted:
            raise Problem("/open needs an id, or the number that /list shows.")
        await self.open(wanted)

    def _meant(self, wanted: str) -> str:
        if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) <= len(self._listed):
            return str(self._listed[int(wanted) - 1]["id"])
        return wanted

    async def _rate(self, words: str) -> None:
        sign, _, comment = words.partition(" ")
        if sign not in {"+", "-"}:
            raise Problem("say /rate + or /rate -, perhaps with a comment behind it.")
        if self.last_request is None:
            raise Problem("there is no answer to rate yet.")
        said: dict[str, Any] = {"request": self.last_request, "rating": 1 if sign == "+" else -1}
        said |= {"comment": comment.strip()} if comment.strip() else {}
        said |= {"user": self.user} if self.user else {}
        await self.master.send("POST", "/v1/feedback", said)
        self.say("Noted.")

    async def _quit(self, _: str) -> None:
        self.ended = True


class Lines:
    """Carries out lines one after another; Ctrl-C stops what a line does, and not the chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Let go of the master."""
        with self._runner:
            self._runner.run(self._chat.master.__aexit__())

    def take(self, line: str) -> bool:
        """Carry out one line; False if it was stopped. Raises `Problem`."""
        try:
            self._runner.run(self._chat.take(line))
        except KeyboardInterrupt:
            return False
        return True
