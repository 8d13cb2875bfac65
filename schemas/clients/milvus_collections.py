"""The two Milvus collections: their fields, their index, their filters, and rows both ways.

No partition key: on Milvus 2.3 an upsert puts such rows into the wrong partition, where neither search nor delete by
key finds them (milvus-io/milvus#30607). A reader's rows are found by their primary keys instead.
"""

import json
from collections.abc import Collection as Keys
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from pymilvus import CollectionSchema, DataType, FieldSchema

from schemas.article import title_key
from schemas.clients.vector_store import StoredArticle, UserQuery, as_vectors, expiry, row_id
from schemas.names import EMBEDDING_DIMENSIONS, Collection

VECTOR_FIELD = "embedding"
HNSW: Mapping[str, Any] = {"index_type": "HNSW", "metric_type": "COSINE", "params": {"M": 16, "efConstruction": 200}}
# rows are read by key and rewritten all the time: an HNSW graph would be built again and again for nothing
FLAT: Mapping[str, Any] = {"index_type": "FLAT", "metric_type": "COSINE", "params": {}}
_IDENTIFIER_BYTES = 512  # 128 characters of UTF-8; Milvus counts bytes


class Field(msgspec.Struct, frozen=True):
    """One field; `size` is the limit in bytes of a VARCHAR, the dimensions of a FLOAT_VECTOR, else 0."""

    name: str
    type: DataType
    size: int = 0


class CollectionSpec(msgspec.Struct, frozen=True):
    """A collection; the first field is the primary key."""

    name: str
    index: Mapping[str, Any]
    fields: tuple[Field, ...]


ARTICLES = CollectionSpec(
    Collection.ARTICLES,
    HNSW,
    (
        Field("article_id", DataType.VARCHAR, _IDENTIFIER_BYTES),
        Field("title", DataType.VARCHAR, 2_000),
        Field("summary", DataType.VARCHAR, 32_000),
        Field("url", DataType.VARCHAR, 8_192),
        Field("source", DataType.VARCHAR, 512),
        Field("category", DataType.VARCHAR, 512),
        Field("published_at", DataType.INT64),
        Field("expires_at", DataType.INT64),
        Field("title_key", DataType.VARCHAR, 8_000),  # case folding may lengthen a title
        Field("embed_model", DataType.VARCHAR, 512),
        Field(VECTOR_FIELD, DataType.FLOAT_VECTOR, EMBEDDING_DIMENSIONS),
    ),
)

USER_QUERIES = CollectionSpec(
    Collection.USER_QUERIES,
    FLAT,
    (
        Field("id", DataType.VARCHAR, _IDENTIFIER_BYTES + 8),
        Field("user_id", DataType.VARCHAR, _IDENTIFIER_BYTES),
        Field("slot", DataType.INT64),
        Field("source", DataType.VARCHAR, 32),
        Field("query", DataType.VARCHAR, 2_048),
        Field("profile_fingerprint", DataType.VARCHAR, 128),
        Field("model", DataType.VARCHAR, 512),
        Field("model_version", DataType.VARCHAR, 512),
        Field("prompt_version", DataType.VARCHAR, 128),
        Field("generated_at", DataType.INT64),
        Field("expires_at", DataType.INT64),
        Field(VECTOR_FIELD, DataType.FLOAT_VECTOR, EMBEDDING_DIMENSIONS),
    ),
)

HIT_FIELDS = ["title", "url", "published_at"]
USER_QUERY_HIT_FIELDS = ["user_id", "query", "source", "generated_at"]
STORY_FIELDS = ["title_key", "published_at"]
USER_QUERY_FIELDS = [field.name for field in USER_QUERIES.fields]


def schema_of(spec: CollectionSpec) -> CollectionSchema:
    def field(at: int, one: Field) -> FieldSchema:
        size = {DataType.VARCHAR: {"max_length": one.size}, DataType.FLOAT_VECTOR: {"dim": one.size}}
        return FieldSchema(one.name, one.type, is_primary=at == 0, **size.get(one.type, {}))

    return CollectionSchema([field(at, one) for at, one in enumerate(spec.fields)], enable_dynamic_field=False)


def differences(spec: CollectionSpec, described: Mapping[str, Any]) -> list[str]:
    """How an existing collection differs from `spec`, in words."""
    there = {field["name"]: field for field in described["fields"]}
    found = [f"field {one.name} is missing or of another type" for one in spec.fields if not _same(one, there)]
    if any(field.get("is_partition_key") for field in there.values()):
        found.append("it has a partition key")
    return found


def _same(one: Field, there: Mapping[str, Mapping[str, Any]]) -> bool:
    field = there.get(one.name, {})
    dimensions = field.get("params", {}).get("dim", 0)
    return field.get("type") == one.type and (one.type != DataType.FLOAT_VECTOR or int(dimensions) == one.size)


def any_of(field: str, values: Keys[str]) -> str:
    """`field in [...]`. The only place where text enters a filter: pymilvus's own `ids=` does not escape it."""
    return f"{field} in [{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"


def in_slots(slots: range) -> str:
    return f"slot >= {slots.start:d} and slot < {slots.stop:d}"


def live(now_ms: int) -> str:
    return f"expires_at > {now_ms:d}"


def expired(now_ms: int) -> str:
    return f"expires_at <= {now_ms:d}"


def published_between(first_ms: int, last_ms: int) -> str:
    return f"published_at >= {first_ms:d} and published_at <= {last_ms:d}"


def article_row(stored: StoredArticle) -> dict[str, Any]:
    article = stored.article
    return {
        "article_id": article.article_id,
        "title": article.title,
        "summary": article.summary,
        "url": article.url,
        "source": article.source,
        "category": article.category or "",
        "published_at": article.published_at,
        "expires_at": expiry(article),
        "title_key": title_key(article.title),
        "embed_model": stored.embed_model,
        VECTOR_FIELD: as_vectors(stored.embedding[np.newaxis])[0],
    }


def user_query_row(row: UserQuery) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return {**fields, "id": row_id(row.user_id, row.slot), VECTOR_FIELD: as_vectors(row.embedding[np.newaxis])[0]}


def user_query_of(row: Mapping[str, Any]) -> UserQuery:
    fields = {name: row[name] for name in UserQuery.__struct_fields__}
    # a copy: the answer's array would live as long as any of its rows is cached
    return UserQuery(**{**fields, VECTOR_FIELD: np.array(row[VECTOR_FIELD], dtype=np.float32)})
