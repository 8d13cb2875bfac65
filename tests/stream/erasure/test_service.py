"""What cannot be a reader's id is refused before anything is asked of anybody; the rest needs a broker."""

import pytest

from schemas.clients.memory_store import MemoryStore
from schemas.config import Config, Kafka
from schemas.errors import UsageError
from stream.erasure.service import EraseService
from stream.producer import MemoryProducer

NOW = 1_800_000_000_000
NOWHERE = Config(kafka=Kafka(bootstrap="127.0.0.1:1"))


@pytest.mark.parametrize("user_id", ["", "a\nb", "a\n", "x" * 129])
@pytest.mark.parametrize("before_ms", [None, NOW - 1])
async def test_what_cannot_be_an_id_is_refused_and_asked_of_nobody(user_id: str, before_ms: int | None) -> None:
    producer = MemoryProducer()
    service = EraseService(NOWHERE, MemoryStore(), producer, lambda: NOW)
    with pytest.raises(UsageError, match="cannot be a reader's id"):
        await service.erase(user_id, before_ms=before_ms)
    assert producer.sent == []


async def test_an_erasure_cannot_reach_into_the_future() -> None:
    service = EraseService(NOWHERE, MemoryStore(), MemoryProducer(), lambda: NOW)
    with pytest.raises(UsageError, match="a time that has passed"):
        await service.erase("ann", before_ms=NOW + 1)
