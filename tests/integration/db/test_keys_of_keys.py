"""Keys that other keys made end with them, whatever happens at the same time."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import tenants
from db.tenants import MOST_MADE
from master.api.keys import new_key


async def by_hand(connection: AsyncConnection, tenant: UUID) -> str:
    """The prefix of a key that depends on none."""
    made = new_key()
    await tenants.add_key(connection, tenant, "by hand", made.prefix, made.digest)
    return made.prefix


async def made_by(connection: AsyncConnection, maker: str) -> str | None:
    """The prefix of a key that another one made, if it may."""
    made = new_key()
    kept = await tenants.add_key_of(connection, maker, "made", made.prefix, made.digest)
    return made.prefix if kept else None


async def is_valid(engine: AsyncEngine, prefix: str) -> bool:
    async with engine.connect() as connection:
        found = await tenants.find_key(connection, prefix)
    assert found is not None
    return found.revoked_at is None


async def test_keys_are_listed_below_those_that_made_them(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        await by_hand(connection, await tenants.ensure_tenant(connection, "other"))
        maker = await by_hand(connection, tenant)
    async with engine.begin() as connection:
        later = await by_hand(connection, tenant)
    async with engine.begin() as connection:
        made = await made_by(connection, maker)
        listed = await tenants.list_keys(connection, tenant)
    assert [(key.prefix, key.made_with) for key in listed] == [
        (maker, None),
        (made, maker),
        (later, None),
    ]


async def test_a_key_that_is_being_made_while_its_maker_is_revoked_is_of_no_use(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        maker = await by_hand(connection, tenant)
    async with engine.begin() as making:
        made = await made_by(making, maker)
        assert made is not None
        async with engine.begin() as connection:
            assert await tenants.revoke_key(connection, maker)
    assert not await is_valid(engine, made)


async def test_only_valid_keys_that_depend_on_none_make_keys(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        maker = await by_hand(connection, tenant)
        made = await made_by(connection, maker)
        assert made is not None
        assert await made_by(connection, made) is None
        assert await made_by(connection, "mr-nobody00") is None
        assert await tenants.revoke_key(connection, maker)
        assert await made_by(connection, maker) is None


async def test_one_key_cannot_bury_the_others_under_its_own(
    engine: AsyncEngine, tenant: UUID
) -> None:
    async with engine.begin() as connection:
        maker, another = await by_hand(connection, tenant), await by_hand(connection, tenant)
        made = [await made_by(connection, maker) for _ in range(MOST_MADE)]
        assert None not in made
        assert await made_by(connection, maker) is None
        assert await made_by(connection, another) is not None
        assert made[0] is not None
        assert await tenants.revoke_key(connection, made[0])
        assert await made_by(connection, maker) is not None
