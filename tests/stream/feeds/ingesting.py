"""One run of `keenstream ingest` without its command: onto a producer in memory."""

from pathlib import Path
from typing import Any

import msgspec

from schemas.codecs import JSON_CODECS
from stream.feeds import ingestion
from stream.feeds.fetch import Fetcher, Limits
from stream.feeds.formats import recognise
from stream.feeds.ingestion import Destination, IngestOptions, SourceResult
from stream.producer import MemoryProducer

QUICK = Limits(pause_seconds=0.0, seconds=20.0, attempts=3, most_wait_seconds=5.0, max_bytes=2 * 1024 * 1024)


class Desk:
    """A state folder and a topic; each call is a run of its own."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.producer = MemoryProducer()
        self.slept: list[float] = []
        self.options = IngestOptions(folder=folder / "state", limits=options.pop("limits", QUICK), **options)

    async def file(self, path: Path, **changed: Any) -> SourceResult:
        options = msgspec.structs.replace(self.options, **changed)
        return await ingestion.ingest_file(path, options.format or recognise(path), options, self._to())

    async def feed(self, address: str, **changed: Any) -> SourceResult:
        options = msgspec.structs.replace(self.options, **changed)
        async with Fetcher(options.limits, sleep=self._sleep) as fetcher:
            return await ingestion.ingest_feed(address, options, self._to(), fetcher)

    async def document(self, path: Path) -> SourceResult:
        async with Fetcher(self.options.limits, sleep=self._sleep) as fetcher:
            return await ingestion.ingest_document(path, recognise(path), self.options, self._to(), fetcher)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)  # back-off takes no time in tests

    def _to(self, cluster: str = "test") -> Destination:
        return Destination(producer=self.producer, codecs=JSON_CODECS, cluster=cluster)

    @property
    def titles(self) -> list[str]:
        return [msgspec.json.decode(message.value or b"{}")["title"] for message in self.producer.sent]
