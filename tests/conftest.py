"""Servers for all tests: started when the first test asks, once per session, and always stopped."""

import secrets
from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres with pgvector, as its superuser."""
    try:
        with servers.postgres() as url:
            yield url
    except servers.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    url = servers.create_database(postgres_url)
    yield url
    servers.drop_database(postgres_url, url)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[servers.Rabbit]:
    """A RabbitMQ whose virtual hosts the tests make and delete."""
    try:
        with servers.rabbitmq() as rabbit:
            yield rabbit
    except servers.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def local_rabbitmq(rabbitmq: servers.Rabbit) -> Iterator[servers.LocalRabbit]:
    """A RabbitMQ node to freeze, kill and restart; whoever does it heals it again."""
    if isinstance(rabbitmq, servers.LocalRabbit):
        yield rabbitmq
        return
    try:
        with servers.LocalRabbit(management=True) as local:
            yield local
    except servers.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def rabbitmq_url(rabbitmq: servers.Rabbit) -> Iterator[str]:
    """An empty virtual host of the test's own."""
    vhost = f"test-{secrets.token_hex(6)}"
    rabbitmq.add_vhost(vhost)
    yield rabbitmq.url(vhost)
    rabbitmq.delete_vhost(vhost)
