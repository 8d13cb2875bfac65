"""The vector store's contract: articles by vector, and the queries that stand for each reader.

`Store` is implemented by `milvus.MilvusStore` and by the in-memory twin `memory_store.MemoryStore`; one behaviour
suite runs on both (`tests/contracts/test_*_store.py`). Reads that are not `strong` may lag behind writes (about
0.2 s on Milvus); `strong` reads see every write that was answered and cost about that time.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.article import Article
from schemas.candidates import Hit
from schemas.names import EMBEDDING_DIMENSIONS
from schemas.queries import MAX_QUERIES, QueryList, Source

Vector = NDArray[np.float32]  # [384], unit length
Vectors = NDArray[np.float32]  # [n, 384]

# A reader's rows are keyed user_id#slot: the student's queries first, then the reader's own signals.
STUDENT_SLOTS: Final = range(MAX_QUERIES)
SIGNAL_SLOTS: Final = range(MAX_QUERIES, MAX_QUERIES + 8)
SLOTS: Final = range(SIGNAL_SLOTS.stop)
MAX_FOUND: Final = 16_384  # rows in one answer, by Milvus's limit


class StoredArticle(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An article ready for the store; `article.expires_at` must be set."""

    article: Article
    embed_model: str
    embedding: Vector


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What the same-story rule needs to know of a stored article."""

    article_id: str
    title_key: str
    published_at: int  # UTC ms


class SimilarStory(msgspec.Struct, frozen=True, kw_only=True):
    story: Story
    similarity: float  # cosine


class UserQuery(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One query that stands for a reader, with its vector. No cycles: a cache of many stays out of gc's way."""

    user_id: str
    slot: int
    source: Source
    query: str
    embedding: Vector
    profile_fingerprint: str
    model: str
    model_version: str
    prompt_version: str
    generated_at: int  # UTC ms
    expires_at: int  # UTC ms


class UserQueryHit(NamedTuple):
    """A stored query found by an article's vector."""

    user_id: str
    query: str
    source: Source
    similarity: float  # cosine
    generated_at: int  # UTC ms


class SlotWrite(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a reader has from now on in `slots`: `rows` and nothing else; other slots stay as they are.

    Two workers write for a reader, each its own slots: the student's list takes seconds, the signals milliseconds.
    """

    user_id: str
    slots: range  # STUDENT_SLOTS or SIGNAL_SLOTS
    rows: tuple[UserQuery, ...]


class StoredSlot(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """That a reader has a row, without what it says."""

    slot: int
    generated_at: int  # UTC ms


class StoreCounts(msgspec.Struct, frozen=True, kw_only=True):
    articles: int
    user_queries: int


class ArticleStore(Protocol):
    """Articles by vector. Every read leaves expired articles out."""

    async def upsert_articles(self, articles: Sequence[StoredArticle]) -> None:
        """Write or replace by article_id; the last of equal ids wins."""

    async def delete_articles(self, article_ids: Collection[str]) -> None: ...

    async def search_articles(
        self, vectors: Vectors, *, limit: int, now_ms: int, strong: bool = False
    ) -> list[list[Hit]]:
        """For each vector the `limit` nearest articles, best first, in one round trip."""

    async def newest_articles(self, *, limit: int, now_ms: int) -> list[Hit]:
        """Latest published first (similarity 0), none from the future."""

    async def stories_titled(self, title_keys: Collection[str], *, now_ms: int) -> list[Story]:
        """Stored articles with one of these title keys (a strong read)."""

    async def find_similar(self, vectors: Vectors, *, limit: int, now_ms: int) -> list[list[SimilarStory]]:
        """For each vector the nearest stored stories (a strong read)."""

    async def article_vectors(
        self, article_ids: Collection[str], *, now_ms: int, strong: bool = False
    ) -> dict[str, Vector]:
        """The vectors of those articles that are stored, by id."""


class UserQueryStore(Protocol):
    """The queries that stand for each reader."""

    async def write_user_queries(self, writes: Sequence[SlotWrite]) -> None:
        """Each write replaces what the reader had in its slots; one upsert and one delete by ids for all of them."""

    async def user_queries(self, user_id: str, *, now_ms: int, strong: bool = False) -> tuple[UserQuery, ...]:
        """The reader's rows that have not expired, by slot."""

    async def user_queries_of(self, user_ids: Sequence[str], *, now_ms: int) -> dict[str, tuple[UserQuery, ...]]:
        """The same for several readers in one read; readers without rows are left out."""

    async def search_user_queries(
        self, vectors: Vectors, *, limit: int, now_ms: int, min_similarity: float
    ) -> list[list[UserQueryHit]]:
        """For each vector the nearest queries of all readers, at most `limit` (MAX_FOUND), best first.

        Only live rows whose similarity is above `min_similarity`. A reader may be found by several queries.
        """

    async def delete_user(self, user_id: str, slots: range = SLOTS) -> int:
        """Erase what a reader has in `slots`; how many rows there were. Deleted by ids and verified by the reader's
        field: RetryableError if a row is left."""

    async def find_user(self, user_id: str) -> tuple[StoredSlot, ...]:
        """All rows of a reader by slot, expired ones too, found by ids or by the reader's field (a strong read)."""


class Store(ArticleStore, UserQueryStore, Protocol):
    async def prepare(self) -> None:
        """Create what is missing and check what is there; again and again without harm."""

    async def check(self) -> None:
        """One real request; raises Unavailable with what to do."""

    async def count(self) -> StoreCounts:
        """All rows, expired ones that are not yet swept included (a strong read)."""

    async def sweep(self, now_ms: int) -> int:
        """Delete what expired at or before `now_ms`; how many rows went."""

    async def close(self) -> None: ...


def student_write(written: QueryList, vectors: Vectors) -> SlotWrite:
    """The student's slots for a list; a fallback list (`source` is `signals`) leaves them empty."""
    queries = written.queries if written.source == "student" else ()
    return _slot_write(written, "student", STUDENT_SLOTS, queries, vectors)


def signal_write(written: QueryList, vectors: Vectors) -> SlotWrite:
    """The signals' slots for a list; `vectors` are those of `written.signals`."""
    return _slot_write(written, "signals", SIGNAL_SLOTS, written.signals, vectors)


def _slot_write(
    written: QueryList, source: Source, slots: range, queries: Sequence[str], vectors: Vectors
) -> SlotWrite:
    pairs = zip(slots, queries, vectors, strict=False)
    rows = tuple(_row(written, source, slot, query, vector) for slot, query, vector in pairs)
    return SlotWrite(user_id=written.user_id, slots=slots, rows=rows)


def _row(written: QueryList, source: Source, slot: int, query: str, embedding: Vector) -> UserQuery:
    return UserQuery(
        user_id=written.user_id,
        slot=slot,
        source=source,
        query=query,
        embedding=embedding,
        profile_fingerprint=written.profile_fingerprint,
        model=written.model,
        model_version=written.model_version,
        prompt_version=written.prompt_version,
        generated_at=written.generated_at,
        expires_at=written.expires_at,
    )


def row_id(user_id: str, slot: int) -> str:
    """Unambiguous although user ids may hold `#`: the slot follows the last one."""
    return f"{user_id}#{slot}"


def by_reader(rows: Iterable[UserQuery]) -> dict[str, tuple[UserQuery, ...]]:
    """Rows of several readers, each reader's by slot."""
    found: dict[str, list[UserQuery]] = {}
    for row in sorted(rows, key=lambda row: row.slot):
        found.setdefault(row.user_id, []).append(row)
    return {user_id: tuple(of_reader) for user_id, of_reader in found.items()}


def emptied_ids(write: SlotWrite) -> list[str]:
    """Ids of the write's slots that its rows do not fill."""
    filled = {row.slot for row in write.rows}
    return [row_id(write.user_id, slot) for slot in write.slots if slot not in filled]


def as_vectors(vectors: Vectors) -> Vectors:
    """`vectors` as float32 [n, 384]; ValueError names the shape that came."""
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != EMBEDDING_DIMENSIONS:
        raise ValueError(f"vectors of shape {array.shape}: [n, {EMBEDDING_DIMENSIONS}] expected")
    return array


def expiry(article: Article) -> int:
    if article.expires_at is None:
        raise ValueError("expires_at is not set: stream/articles fills it before an article is stored")
    return article.expires_at
