"""Rows 1 and 2: one chat at a time, and many at once, through Millrace and through LiteLLM."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from bench.effort import Effort
from bench.load import Order, Target, run
from bench.samples import Cost, Findings, Limit, Row, cost, ratios
from bench.site import LiteLLM, Meter, Millrace

CHUNKS = 32
SCRIPT = str(CHUNKS)
MODEL = {"provider": "openai", "engine_model": SCRIPT, "slots": 64}
_PAUSE_SECONDS = 0.02
"""Between two chats of the single client; nobody's late work may delay somebody else's answer."""


def first_token(mill: Millrace, proxy: LiteLLM, effort: Effort) -> Findings:
    """What each adds to the engine's own time to the first token, chat by chat in turn."""
    targets = (
        mill.servers.engine_target(SCRIPT, CHUNKS),
        mill.target(CHUNKS),
        proxy.target(CHUNKS),
    )
    run(Order(targets, clients=1, chats=10))  # so that nothing is met for the first time
    added: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(effort.rounds):
        load = run(Order(targets, 1, effort.first_token_chats, _PAUSE_SECONDS))
        engine = statistics.median(load.firsts["engine"])
        for name, firsts in load.firsts.items():
            added[name].append(1000 * (statistics.median(firsts) - engine))
        added["engine"][-1] = 1000 * engine
    ours, theirs = tuple(added["millrace"]), tuple(added["litellm"])
    title = "added to first token"
    return Findings(
        (
            Row("1", title, "ms p50", ours, judged=ours, limit=Limit(8, at_least=False)),
            Row(
                *("1", title, "ms p50", ours, "LiteLLM", theirs, ratios(ours, theirs)),
                limit=Limit(0.35, at_least=False),
            ),
        ),
        notes=(f"engine alone: {statistics.median(added['engine']):.2f} ms to the first token",),
    )


@dataclass
class _System:
    target: Target
    groups: Mapping[str, list[int]]
    chats: int
    rates: list[float]
    spent: list[dict[str, float]]

    def measure(self, clients: int) -> None:
        """One round; a client sends its chats one after the other."""
        each = max(2, self.chats // clients)
        meter = Meter(self.groups)
        load = run(Order((self.target,), clients, each))
        spent = {**meter.spent(), "client": load.cpu_seconds}
        self.spent.append({name: seconds / (clients * each) for name, seconds in spent.items()})
        self.rates.append(load.per_second)


def throughput(mill: Millrace, proxies: Mapping[str, LiteLLM], effort: Effort) -> Findings:
    """Chats per second with so many clients at once, systems in turn."""
    rows: list[Row] = []
    costs: list[Cost] = []
    for clients in effort.chat_clients:
        ours = _System(mill.target(CHUNKS), mill.processes(), effort.chats, [], [])
        peers = {
            name: _System(proxy.target(CHUNKS), proxy.processes(), effort.peer_chats, [], [])
            for name, proxy in proxies.items()
        }
        run(Order((ours.target,), clients, 2))
        for _ in range(effort.rounds):
            for system in (ours, *peers.values()):
                system.measure(clients)
        row = f"chat {clients}"
        costs.append(cost(row, "Millrace", ours.spent))
        costs += [cost(row, name, peer.spent) for name, peer in peers.items()]
        rows += [
            Row(
                "2",
                f"streamed chats, {clients} clients",
                "per s",
                tuple(ours.rates),
                name,
                tuple(peer.rates),
                ratios(ours.rates, peer.rates),
                Limit(5, at_least=True),
            )
            for name, peer in peers.items()
        ]
    return Findings(tuple(rows), tuple(costs), _ceilings(mill, effort))


def _ceilings(mill: Millrace, effort: Effort) -> tuple[str, ...]:
    """What the load generator and the engine do without anybody between them."""
    engine = mill.servers.engine_target(SCRIPT, CHUNKS)
    found = [(n, run(Order((engine,), n, 4000 // n)).per_second) for n in effort.chat_clients]
    rates = ", ".join(f"{rate:.0f}/s with {clients} clients" for clients, rate in found)
    return (f"load generator on the engine alone: {rates}",)
