"""One store of each kind for the tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.clients.memory_store import MemoryStore
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import (
    Store,
)
from schemas.config import Milvus
from tests.contracts.stores import FOREVER


@pytest_asyncio.fixture(
    params=["memory", pytest.param("milvus", marks=pytest.mark.stack)], scope="module", loop_scope="module"
)
async def prepared(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    milvus = MilvusStore(Milvus(uri=request.getfixturevalue("milvus")), prefix="contract_")
    await milvus.prepare()
    yield milvus
    await milvus.drop()
    await milvus.close()


@pytest_asyncio.fixture(loop_scope="module")
async def store(prepared: Store) -> AsyncIterator[Store]:
    yield prepared
    await prepared.sweep(FOREVER + 1)
