"""How much is measured: the whole, or a look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Rounds and sizes. A round measures every system once."""

    rounds: int
    first_token_chats: int
    """By target and round, one after the other."""
    chat_clients: tuple[int, ...]
    chats: int
    """Of Millrace in a round; a peer gets about as many as take the same time."""
    peer_chats: int
    subtasks: int
    """In a round, for each system."""
    table_subtasks: int
    """The same for Celery with results in Postgres."""
    workers: int
    """For the split: so many processes with 8 slots together."""
    stops: int
    """In a round, of each way to stop."""
    kills: int
    """Of workers, one after the other."""
    streams: int
    """Open at once."""
    chunks: int
    """Of the collection that is searched."""
    searches: int
    """In a round, of each kind."""
    documents: int
    """That are ingested, in each way."""
    console_requests: int
    """That the console's pages choose from."""
    console_loads: int
    """Of each page."""


FULL = Effort(
    rounds=5,
    first_token_chats=30,
    chat_clients=(16, 64),
    chats=384,
    peer_chats=64,
    subtasks=1024,
    table_subtasks=512,
    workers=8,
    stops=100,
    kills=10,
    streams=1000,
    chunks=100_000,
    searches=100,
    documents=100,
    console_requests=50_000,
    console_loads=20,
)
QUICK = Effort(
    rounds=2,
    first_token_chats=15,
    chat_clients=(16,),
    chats=96,
    peer_chats=32,
    subtasks=256,
    table_subtasks=256,
    workers=1,
    stops=50,
    kills=3,
    streams=1000,
    chunks=20_000,
    searches=50,
    documents=20,
    console_requests=50_000,
    console_loads=10,
)
