"""The workers by name, and what must exist before they start."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from schemas.config import Config

Runner = Callable[[Config, Path], int]


def _profiles(config: Config, folder: Path) -> int:
    from stream.profiles.worker import run

    return run(config, folder)


def _signals(config: Config, folder: Path) -> int:
    from stream.interests.worker import run_signals

    return run_signals(config, folder)


def _interests(config: Config, folder: Path) -> int:
    from stream.interests.worker import run_interests

    return run_interests(config, folder)


def _articles(config: Config, folder: Path) -> int:
    from stream.articles.worker import run

    return run(config, folder)


def _matches(config: Config, folder: Path) -> int:
    from stream.matches.worker import run

    return run(config, folder)


def _api(config: Config, folder: Path) -> int:
    from stream.api.server import run

    return run(config, folder)


def _archive(config: Config, _: Path) -> int:
    from keenstream.settings import archive_folder
    from stream.archive.worker import run

    return run(config, archive_folder(config))


RUNNERS: dict[str, Runner] = {
    "profiles": _profiles,
    "signals": _signals,
    "interests": _interests,
    "articles": _articles,
    "matches": _matches,
    "archive": _archive,
    "api": _api,
}


def prepare(config: Config) -> list[str]:
    """Create missing topics and collections; returns the new topics. Raises UsageError when existing ones are wrong."""
    from stream.topics import all_topics
    from stream.transport import check_topics, create_topics

    created = create_topics(config.kafka, all_topics(config), replication_factor=config.kafka.replication_factor)
    check_topics(config.kafka, all_topics(config))
    asyncio.run(_prepare_collections(config))
    return created


async def _prepare_collections(config: Config) -> None:
    from schemas.clients.milvus import MilvusStore

    store = MilvusStore(config.milvus)
    try:
        await store.prepare()
    finally:
        await store.close()
