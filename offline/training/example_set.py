"""A prepared folder: shards of examples by split, clicks, articles, and the manifest that says what they are.

manifest.json
training/part-00000.parquet ...   validation/...   held_out/...
clicks/part-00000.parquet ...     every reader's clicks up to the last moment: what popularity and sequence models see
articles.parquet
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from offline.event_log import SourceFile
from offline.training.examples import Example, Moment, SplitName, read_examples
from schemas.article import Article
from schemas.errors import UsageError

MANIFEST: Final = "manifest.json"
ARTICLES: Final = "articles.parquet"
CLICKS: Final = "clicks"
CLICK_SCHEMA = pa.schema(
    [pa.field("user_id", pa.string()), pa.field("article_id", pa.string()), pa.field("occurred_at", pa.int64())]
)


class SplitCounts(msgspec.Struct, frozen=True, kw_only=True):
    examples: int = 0
    with_clicks: int = 0
    clicks: int = 0

    def __add__(self, other: "SplitCounts") -> "SplitCounts":
        return SplitCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class ExamplesManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Equal logs and settings give equal `content_sha256`, on every runner."""

    sources: tuple[SourceFile, ...]
    moments: tuple[Moment, ...]
    prompt_version: str
    signals_per_domain: int
    languages: tuple[str, ...]
    events: int  # read, duplicates included
    bad_lines: int
    readers: int  # with an example or not
    splits: dict[str, SplitCounts]
    articles: int
    content_sha256: str


def read_manifest(folder: Path) -> ExamplesManifest:
    """UsageError when `folder` was not prepared, or not to the end."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=ExamplesManifest)
    except FileNotFoundError as error:
        raise UsageError(f"{folder} holds no examples: run `keenstream train prepare LOG --out {folder}`") from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{folder / MANIFEST} is not of this version of keenstream ({error}): prepare again"
        ) from error


def load_split(folder: Path, split: SplitName) -> list[Example]:
    """All examples of a split, by reader and moment."""
    manifest = read_manifest(folder)
    rows = [row for path in sorted((folder / split).glob("part-*.parquet")) for row in read_examples(path)]
    wanted = manifest.splits.get(split, SplitCounts()).examples
    if len(rows) != wanted:
        raise UsageError(f"{folder / split} holds {len(rows)} of {wanted} examples: files are missing, prepare again")
    return sorted(rows, key=lambda row: (row.user_id, row.at_ms))


def load_articles(folder: Path) -> list[Article]:
    table = pq.read_table(folder / ARTICLES)
    return [msgspec.convert(row, Article) for row in table.to_pylist()]


def load_clicks(folder: Path) -> pa.Table:
    """user_id, article_id, occurred_at of all readers, by time, reader and article."""
    paths = sorted((folder / CLICKS).glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(path, schema=CLICK_SCHEMA) for path in paths])
    return table.sort_by([("occurred_at", "ascending"), ("user_id", "ascending"), ("article_id", "ascending")])


def write_articles(path: Path, articles: Sequence[Article]) -> None:
    names = Article.__struct_fields__
    pq.write_table(pa.table({name: [getattr(row, name) for row in articles] for name in names}), path)


def content_hash(parts: Iterable[str]) -> str:
    """Of the shards' own hashes, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
