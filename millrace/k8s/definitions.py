"""RabbitMQ's definitions: users with hashed passwords, what each may do, and every queue. Pure.

The broker imports the file whenever it starts. So the queues that KEDA watches are there before
anybody asks for them, and a broker that lost its volume comes back as it was.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from queue_schemas import topology
from queue_schemas.registry import Model
from queue_schemas.topology import Queue

MILLRACE_VHOST: Final = "millrace"
CELERY_VHOST: Final = "celery"

_SALT_BYTES: Final = 4
_ALGORITHM: Final = "rabbit_password_hashing_sha256"


@dataclass(frozen=True)
class _Grant:
    """Regular expressions of what may be declared or deleted, written to and read from."""

    vhost: str
    configure: str = "^$"
    write: str = "^$"
    read: str = "^$"


def _only(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"


_SHARED = tuple(queue.name for queue in topology.SHARED)
_EXCHANGES = (topology.CONTROL_EXCHANGE, topology.EVENTS_EXCHANGE)
_SUBTASKS, _CONTROL = r"subtasks\..+", r"control\..+"
# What is published to a queue goes through the exchange without a name, which is called so here.
# It cannot be narrowed to some queues: that strangers inject nothing is the signature's part.
_ANY_QUEUE = r"amq\.default"

_TAGS: Final[Mapping[str, list[str]]] = {
    "admin": ["administrator"],
    "celery": [],
    "keda": ["management"],
    "master": ["management"],  # `reconcile` asks for the messages in workers' hands
    "n8n": [],
    "worker": [],
}
USERS: Final = tuple(_TAGS)

_GRANTS: Final[Sequence[tuple[str, _Grant]]] = (
    ("admin", _Grant(MILLRACE_VHOST, ".*", ".*", ".*")),
    ("admin", _Grant(CELERY_VHOST, ".*", ".*", ".*")),
    ("celery", _Grant(CELERY_VHOST, ".*", ".*", ".*")),
    # It sees how long the queues are, and can take or put nothing.
    ("keda", _Grant(MILLRACE_VHOST)),
    ("master", _Grant(MILLRACE_VHOST, ".*", ".*", ".*")),
    # `millrace n8n provision` declares what n8n needs, and n8n reads events and sends feedback.
    (
        "n8n",
        _Grant(
            MILLRACE_VHOST,
            configure=_only(*_EXCHANGES, *_SHARED, topology.N8N.name),
            write=_only(_ANY_QUEUE, topology.N8N.name),
            read=_only(topology.EVENTS_EXCHANGE, topology.N8N.name),
        ),
    ),
    # A worker declares what it needs, since it may be the first process there. It takes subtasks
    # and orders, and nobody's results.
    (
        "worker",
        _Grant(
            MILLRACE_VHOST,
            configure=_only(*_EXCHANGES, *_SHARED, _SUBTASKS, _CONTROL),
            write=_only(_ANY_QUEUE, _CONTROL),
            read=_only(topology.CONTROL_EXCHANGE, _SUBTASKS, _CONTROL),
        ),
    ),
)


def definitions(
    passwords: Mapping[str, str], models: Sequence[Model], before: str | None = None
) -> str:
    """The file, for these users' passwords and the queues of these models.

    Hashes of `before` stay where the password is still the same, so that nothing changes without
    a reason. A user without a password here is one whose place is taken at another broker: nobody
    knows what it is.
    """
    old = _hashes(before)
    queues = [*topology.SHARED, *(topology.subtasks(m.slug) for m in models if m.chats)]
    kinds = {topology.CONTROL_EXCHANGE: "fanout", topology.EVENTS_EXCHANGE: "topic"}
    made = {
        "vhosts": [{"name": MILLRACE_VHOST}, {"name": CELERY_VHOST}],
        "users": [_user(name, passwords.get(name), old.get(name)) for name in USERS],
        "permissions": [_permission(user, grant) for user, grant in _GRANTS],
        "exchanges": [_exchange(name, kind) for name, kind in kinds.items()],
        "queues": [_queue(queue) for queue in queues],
        "bindings": [],
        "policies": [],
    }
    return json.dumps(made, indent=2) + "\n"


def hashed(password: str, salt: bytes | None = None) -> str:
    """A password as the broker stores it."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


def is_hash_of(password: str, stored: str) -> bool:
    """Whether a stored hash is of this password."""
    try:
        salt = base64.b64decode(stored, validate=True)[:_SALT_BYTES]
    except ValueError:
        return False
    return hashed(password, salt) == stored


def _hashes(text: str | None) -> dict[str, str]:
    """The users' hashes in a file that was written before, as far as it can be read."""
    try:
        users = json.loads(text or "{}").get("users", [])
        return {str(user["name"]): str(user["password_hash"]) for user in users}
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}


def _user(name: str, password: str | None, old: str | None) -> dict[str, Any]:
    password_hash = old
    if old is None or (password is not None and not is_hash_of(password, old)):
        password_hash = hashed(password or secrets.token_hex(20))
    return {
        "name": name,
        "password_hash": password_hash,
        "hashing_algorithm": _ALGORITHM,
        "tags": _TAGS[name],
    }


def _permission(user: str, grant: _Grant) -> dict[str, str]:
    return {
        "user": user,
        "vhost": grant.vhost,
        "configure": grant.configure,
        "write": grant.write,
        "read": grant.read,
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": MILLRACE_VHOST,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "name": queue.name,
        "vhost": MILLRACE_VHOST,
        "durable": True,
        "auto_delete": False,
        "arguments": queue.arguments(),
    }
