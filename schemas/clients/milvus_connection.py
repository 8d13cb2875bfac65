"""Calls to Milvus: every one with a deadline, and pymilvus's failures as keenstream's errors.

pymilvus's own logger is silenced, and its error texts are not passed on: both repeat filters, which hold user ids.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]  # no stubs in the lock
from pymilvus import AsyncMilvusClient
from pymilvus.exceptions import MilvusException, ParamError

from schemas.clients.access import milvus_options
from schemas.clients.milvus_answers import Found, answer_by_columns, found_rows
from schemas.clients.milvus_collections import VECTOR_FIELD, CollectionSpec, any_of, schema_of
from schemas.clients.vector_store import Vectors, as_vectors
from schemas.config import Milvus
from schemas.errors import KeenstreamError, Overloaded, PermanentError, Unavailable

Answer = TypeVar("Answer")
Item = TypeVar("Item")

SEARCH_BREADTH = 64  # HNSW's ef: at least the limit; recall over speed
WRITE_ROWS = 500  # per call: the longest articles stay below gRPC's message limit
FILTER_KEYS = 1_000  # per call
LOAD_SECONDS = 60.0
_RATE_LIMIT_CODES = frozenset({8, 49})
_INVALID_INPUT_CODE = 1_100


class MilvusConnection:
    """One connection; `prefix` goes before each collection's name."""

    def __init__(self, settings: Milvus, prefix: str) -> None:
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self.uri, self._timeout, self._prefix = settings.uri, settings.timeout_seconds, prefix
        # dedicated: pymilvus shares connections by the loop's id, which a later loop may get again
        self._client = AsyncMilvusClient(**milvus_options(settings), timeout=settings.timeout_seconds, dedicated=True)

    async def close(self) -> None:
        await self._client.close()

    async def version(self) -> str:
        return str(await self._call(self._client.get_server_version(timeout=self._timeout)))

    async def create(self, spec: CollectionSpec) -> None:
        """Create the collection and its index unless they are there."""
        name = self._name(spec)
        if not await self._call(self._client.has_collection(name, timeout=self._timeout)):
            await self._call(self._client.create_collection(name, schema=schema_of(spec), timeout=self._timeout))
        if not await self._call(self._client.list_indexes(name, timeout=self._timeout)):
            parameters = self._client.prepare_index_params()
            parameters.add_index(VECTOR_FIELD, **spec.index)
            await self._call(self._client.create_index(name, parameters, timeout=LOAD_SECONDS), seconds=LOAD_SECONDS)

    async def describe(self, spec: CollectionSpec) -> dict[str, Any]:
        return dict(await self._call(self._client.describe_collection(self._name(spec), timeout=self._timeout)))

    async def load(self, spec: CollectionSpec) -> None:
        """Into memory, where it can be searched; returns at once when it is there."""
        await self._call(self._client.load_collection(self._name(spec), timeout=LOAD_SECONDS), seconds=LOAD_SECONDS)

    async def drop(self, spec: CollectionSpec) -> None:
        await self._call(self._client.drop_collection(self._name(spec), timeout=self._timeout))

    async def upsert(self, spec: CollectionSpec, rows: Sequence[dict[str, Any]]) -> None:
        for chunk in chunks(rows, WRITE_ROWS):
            await self._call(self._client.upsert(self._name(spec), chunk, timeout=self._timeout))

    async def delete(self, spec: CollectionSpec, keys: Collection[str]) -> None:
        """By primary key; keys that are not there do no harm."""
        for chunk in chunks(sorted(keys), FILTER_KEYS):
            await self.delete_where(spec, any_of(spec.fields[0].name, chunk))

    async def delete_where(self, spec: CollectionSpec, condition: str) -> None:
        await self._call(self._client.delete(self._name(spec), filter=condition, timeout=self._timeout))

    async def search(
        self,
        spec: CollectionSpec,
        vectors: Vectors,
        condition: str,
        fields: list[str],
        *,
        limit: int,
        above: float | None = None,
        strong: bool = False,
    ) -> list[list[Found]]:
        """For each vector its nearest rows, best first: the primary key, the similarity, then the fields.

        With `above` only rows that are more similar.
        """
        if not len(vectors):
            return []
        asked = _parameters(limit, above)
        return await self._call(self._search(spec, as_vectors(vectors), condition, fields, limit, asked, strong))

    async def _search(
        self,
        spec: CollectionSpec,
        vectors: Vectors,
        condition: str,
        fields: list[str],
        limit: int,
        parameters: dict[str, float],
        strong: bool,
    ) -> list[list[Found]]:
        answer_by_columns(await self._client._get_connection())
        answer = await self._client.search(
            self._name(spec),
            data=[vector.tobytes() for vector in vectors],
            anns_field=VECTOR_FIELD,
            limit=limit,
            filter=condition,
            output_fields=fields,
            search_params={"params": parameters},
            consistency_level=_consistency(strong),
            timeout=self._timeout,
        )
        return found_rows(answer, fields, len(vectors))

    async def query(
        self,
        spec: CollectionSpec,
        condition: str,
        fields: list[str],
        *,
        limit: int | None = None,
        strong: bool = False,
    ) -> list[dict[str, Any]]:
        limited = {} if limit is None else {"limit": limit}
        rows = await self._call(
            self._client.query(
                self._name(spec),
                filter=condition,
                output_fields=fields,
                consistency_level=_consistency(strong),
                timeout=self._timeout,
                strict_float32=True,  # vectors as arrays, not as lists of Python floats
                **limited,
            )
        )
        return list(rows)

    async def count(self, spec: CollectionSpec, condition: str = "", *, strong: bool = False) -> int:
        rows = await self.query(spec, condition, ["count(*)"], strong=strong)
        return int(rows[0]["count(*)"])

    def _name(self, spec: CollectionSpec) -> str:
        return self._prefix + spec.name

    async def _call(self, operation: Awaitable[Answer], *, seconds: float | None = None) -> Answer:
        deadline = seconds or self._timeout
        try:
            # pymilvus's own timeout does not cover its reconnecting
            return await asyncio.wait_for(operation, deadline)
        except TimeoutError as error:
            raise self._unavailable(f"did not answer in {deadline:g} s") from error
        except MilvusException as error:
            raise self._mapped(error) from error
        except grpc.RpcError as error:
            raise self._unavailable("broke the connection") from error

    def _mapped(self, error: MilvusException) -> KeenstreamError:
        if error.code in _RATE_LIMIT_CODES:
            return Overloaded(f"Milvus at {self.uri} is over its rate limit: try again")
        if isinstance(error, ParamError) or error.code == _INVALID_INPUT_CODE:
            return PermanentError(f"Milvus refuses the call ({type(error).__name__}, code {error.code})")
        return self._unavailable(f"answered with {type(error).__name__}, code {error.code}")

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"Milvus at {self.uri} {what}: start it with `keenstream stack up`, or set milvus.uri")


def _parameters(limit: int, above: float | None) -> dict[str, float]:
    breadth: dict[str, float] = {"ef": max(limit, SEARCH_BREADTH)}
    # the upper bound is needed, and rounding may lift a cosine above 1
    return breadth if above is None else {**breadth, "radius": above, "range_filter": 1.01}


def _consistency(strong: bool) -> str:
    # Milvus's default for a new collection reads stale rows; Strong waits about 0.2 s for its clock to pass
    return "Strong" if strong else "Bounded"


def chunks(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
