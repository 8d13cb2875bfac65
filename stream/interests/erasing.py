"""What the two workers over query requests do at a tombstone: an erased reader's rows go, and then the list of them.

Each worker removes its own slots: of a reader who has come back the other one may have written new rows already, and
what it still answers of an older request it removes itself when it comes to the tombstone.
"""

import asyncio
from collections.abc import Mapping

from schemas.clients.vector_store import UserQueryStore
from schemas.names import Header, Topic
from stream import monitoring
from stream.producer import Outgoing, Producer

Erased = Mapping[str, int]  # erased_before (UTC ms) by user_id


async def erase_readers(erased: Erased, slots: range, *, store: UserQueryStore, producer: Producer, stage: str) -> None:
    """Returns when the rows are gone and the broker has the tombstones. Raises RetryableError; repeatable."""
    if not erased:
        return
    await asyncio.gather(*(store.delete_user(user_id, slots) for user_id in erased))
    await producer.send([_tombstone(user_id, before, stage) for user_id, before in erased.items()])
    monitoring.QUERIES_ERASED.labels(stage).inc(len(erased))


def _tombstone(user_id: str, erased_before: int, stage: str) -> Outgoing:
    headers = ((Header.STAGE, stage.encode()), (Header.ERASED_BEFORE, str(erased_before).encode()))
    return Outgoing(Topic.QUERY_LISTS, user_id.encode(), None, headers)
