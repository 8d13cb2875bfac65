"""Does this Milvus do what the rows of a reader need? Asked once at each start, on the collection that is used.

Milvus 2.3 with a partition key loses upserted rows: a filter on the key finds none, and an erasure by it deletes
nothing, without an error. A server or collection that behaves so must not hold readers' data.
"""

import numpy as np

from schemas.clients.milvus_collections import USER_QUERIES, any_of, user_query_row
from schemas.clients.milvus_connection import MilvusConnection
from schemas.clients.vector_store import SLOTS, UserQuery, row_id
from schemas.errors import UsageError
from schemas.names import EMBEDDING_DIMENSIONS

_NEVER_MS = 10**14
_PREFIX = "\x7fprobe"  # a control character, which no reader's id holds; short: partitions hash 100 characters


async def probe(connection: MilvusConnection, token: str) -> None:
    """Upsert, count, search and delete rows of two made-up readers; UsageError names the first wrong count."""
    ours, others = (f"{_PREFIX}-{name}-{token}" for name in "ab")
    try:
        for _ in range(2):  # the second replaces the first
            await connection.upsert(USER_QUERIES, [*_rows(ours), *_rows(others)])
        await _expect(connection, "after upserting twice, a filter on user_id", ours, len(SLOTS))
        found = await connection.search(
            USER_QUERIES,
            np.eye(1, EMBEDDING_DIMENSIONS, dtype=np.float32),
            any_of("user_id", [ours]),
            ["user_id"],
            limit=2 * len(SLOTS),
            strong=True,
        )
        _compare("a filtered search", len(found[0]), len(SLOTS))
        await connection.delete(USER_QUERIES, _keys(ours))
        await _expect(connection, "after deleting by ids, a filter on user_id", ours, 0)
        await connection.delete_where(USER_QUERIES, any_of("user_id", [others]))
        await _expect(connection, "after deleting by user_id, a filter on user_id", others, 0)
    finally:
        await connection.delete(USER_QUERIES, [*_keys(ours), *_keys(others)])


async def _expect(connection: MilvusConnection, what: str, user_id: str, expected: int) -> None:
    _compare(what, await connection.count(USER_QUERIES, any_of("user_id", [user_id]), strong=True), expected)


def _compare(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise UsageError(
            f"this Milvus cannot be trusted with readers' data: {what} found {found} rows, {expected} were written "
            "(see milvus-io/milvus#30607): use the server wheel that `keenstream stack up` starts, or 2.4 or newer"
        )


def _keys(user_id: str) -> list[str]:
    return [row_id(user_id, slot) for slot in SLOTS]


def _rows(user_id: str) -> list[dict[str, object]]:
    blank = UserQuery(
        user_id=user_id,
        slot=0,
        source="signals",
        query="",
        embedding=np.eye(1, EMBEDDING_DIMENSIONS, dtype=np.float32)[0],
        profile_fingerprint="",
        model="",
        model_version="",
        prompt_version="",
        generated_at=0,
        expires_at=_NEVER_MS,  # a sweep in the middle would look like a fault
    )
    row = user_query_row(blank)
    return [{**row, "id": key, "slot": slot} for slot, key in zip(SLOTS, _keys(user_id), strict=True)]
