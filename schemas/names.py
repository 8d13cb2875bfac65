"""Every name that crosses a process boundary, written once: topics, consumer groups, tensors, models, collections.

A test compares the tensor names with `triton_models/*/config.pbtxt` and forbids the literals elsewhere.
"""

from typing import Final


class Topic:
    """Kafka topics. All are keyed; `user_id` unless another key is named."""

    USER_EVENTS: Final = "user-events"
    QUERY_REQUESTS: Final = "query-requests"  # compacted: one pending request per reader is enough
    QUERY_LISTS: Final = "query-lists"  # compacted: the log of what was written, by which model
    ARTICLES: Final = "articles"  # key = article_id
    EXPOSURES: Final = "exposures"
    OUTCOMES: Final = "outcomes"
    MATCH_CANDIDATES: Final = "match-candidates"  # who may be told of a new article; not yet bounded by the hour
    MATCHES_CHANGELOG: Final = "keenstream-matches-readers-changelog"  # compacted
    FRESH_MATCHES: Final = "fresh-matches"
    ERASURES: Final = "erasures"  # compacted: who was erased, and up to when
    DEAD_LETTERS: Final = "dead-letters"  # key = source topic, partition and offset
    PROFILES_CHANGELOG: Final = (
        "keenstream-profiles-profiles-changelog"  # compacted: <app>-<table>-changelog, Faust's rule
    )


class App:
    """Faust application ids, which are also the consumer groups."""

    PROFILES: Final = "keenstream-profiles"
    SIGNALS: Final = "keenstream-signals"
    INTERESTS: Final = "keenstream-interests"
    ARTICLES: Final = "keenstream-articles"
    MATCHES: Final = "keenstream-matches"
    ARCHIVE: Final = "keenstream-archive"


PROFILE_TABLE: Final = "profiles"
MATCH_TABLE: Final = "readers"


class Model:
    """Names in the Triton model repository."""

    STUDENT: Final = "student"
    EMBEDDER: Final = "embedder"
    CLEANER: Final = "cleaner"


class Tensor:
    """Tensors of the served models; shapes without the batch dimension."""

    PROMPT: Final = "prompt"  # BYTES [1], UTF-8: a rendered prompt
    SAMPLES: Final = "samples"  # INT32 [1], optional: 1 = greedy (default), N > 1 = N sampled lists
    SEED: Final = "seed"  # INT64 [1], optional: sampling seed; 0 or absent = greedy when samples is 1
    COMPLETION: Final = "completion"  # BYTES [N], UTF-8: one generated text per sample
    MODEL_VERSION: Final = "model_version"  # BYTES [1]: name and version of the weights
    PROMPT_VERSION: Final = "prompt_version"  # BYTES [1]: the prompt version these weights were made for
    TEXT: Final = "text"  # BYTES [1], UTF-8
    EMBEDDING: Final = "embedding"  # FP32 [384], unit length
    NOISE: Final = "noise"  # FP32 [1]: probability that the text says nothing of its reader's interests


EMBEDDING_DIMENSIONS: Final = 384


class Collection:
    """Milvus collections."""

    ARTICLES: Final = "articles"
    USER_QUERIES: Final = "user_queries"


class Header:
    """Kafka record headers: of a dead letter, of a record that was replayed, and of an erased reader's tombstone."""

    REASON: Final = "reason"
    STAGE: Final = "stage"
    SOURCE_TOPIC: Final = "source_topic"
    SOURCE_PARTITION: Final = "source_partition"
    SOURCE_OFFSET: Final = "source_offset"
    SOURCE_KEY: Final = "source_key"
    FAILED_AT: Final = "failed_at_ms"
    REPLAYED_FROM: Final = "replayed_from"  # topic:partition:offset; the archive has this record already
    REPLAYED_LETTER: Final = "replayed_letter"  # id of the dead letter that this record was replayed from
    REPLAYS: Final = "replays"  # how often, this time included
    ERASED_BEFORE: Final = "erased_before_ms"
    SIGNALS_FOUND: Final = "signals_found"  # that the erasure removed from the profile
