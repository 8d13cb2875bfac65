"""The archive of the partitions that one worker holds, independent of how records are consumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.archive import ARCHIVED
from schemas.codecs import Codecs
from schemas.config import Archive
from schemas.errors import KeenstreamError, RetryableError, UsageError
from stream import monitoring
from stream.archive.columns import Columns, LeftOut, Refused, TopicRecord
from stream.archive.days import split_by_day
from stream.archive.erasing import Erasures, erase_readers, erase_rows, without_erased
from stream.archive.in_hand import Gathered, InHand
from stream.archive.ranges import Manifest, Ranges, RangeTaken
from stream.producer import Outgoing

_log = getLogger(__name__)
DAY_MS = 86_400_000  # how far ahead of its arrival a time may lie, where a topic has no stricter rule


class Key(NamedTuple):
    """One Kafka partition."""

    topic: str
    partition: int


class KnownErasures(Protocol):
    """`stream.archive.erased_readers.ErasedReaders`."""

    @property
    def before(self) -> Erasures: ...

    def catch_up(self) -> Erasures:
        """Read what was asked for until now; what no file has been searched for yet. Raises RetryableError."""

    def applied(self) -> None:
        """All files have been searched for what `catch_up` returned."""


class Archiver:
    """Gathers records and writes ranges. Not thread-safe."""

    def __init__(
        self,
        settings: Archive,
        folder: Path,
        codecs: Codecs,
        erasures: KnownErasures,
        send: Callable[[Sequence[Outgoing]], None],
        clock_ms: Callable[[], int],
        skews_ms: Mapping[str, int],
    ) -> None:
        """`send` returns when the broker has the dead letters; `skews_ms` by topic, where it is not a day."""
        self._settings, self._folder, self._skews_ms = settings, folder, skews_ms
        self._erasures, self._send, self._clock_ms = erasures, send, clock_ms
        self._columns = {topic: Columns(topic, codecs.of(topic)) for topic in ARCHIVED}
        self._ranges: dict[Key, Ranges] = {}
        self._in_hand: dict[Key, InHand] = {}

    def hold(self, offsets: Mapping[Key, tuple[int, int]]) -> dict[Key, int]:
        """Hold exactly the partitions of `offsets` (the broker's beginning and end of each); where to read each from.

        What is in hand of a partition that was held before stays, unless another worker has written it meanwhile.
        Raises UsageError when the archive is ahead of the broker.
        """
        self._in_hand = {key: held for key, held in self._in_hand.items() if key in offsets}
        return {key: self._place(key, *ends) for key, ends in offsets.items()}

    def take(self, key: Key, records: Sequence[TopicRecord]) -> None:
        self._in_hand[key].take(records, self._clock_ms())

    def write_due(self, *, everything: bool = False) -> Iterator[tuple[Key, int]]:
        """Write the ranges that are due, or all that is in hand; each partition with the offset to commit, or to go
        back to when another worker was first (then it is below what was read).

        Raises RetryableError when a dead letter or an erasure cannot be dealt with now: call again.
        """
        for key, held in list(self._in_hand.items()):
            now_ms = self._clock_ms()
            held.decode(now_ms)
            if held.due(self._settings, now_ms) or (everything and held):
                yield key, self._write(key, held.gathered(now_ms), now_ms)
        monitoring.ARCHIVE_IN_HAND.set(sum(map(len, self._in_hand.values())))

    def erase_new(self) -> None:
        """Take newly erased readers out of all files. Raises RetryableError when the broker does not tell."""
        news = self._erasures.catch_up()
        if news:
            files = erase_readers(self._folder, news)
            self._erasures.applied()
            _log.info("%d new erasures: %d files rewritten", len(news), len(files))

    def _place(self, key: Key, beginning: int, end: int) -> int:
        ranges = self._ranges.setdefault(key, Ranges(self._folder / key.topic, key.partition))
        ranges.settle()
        last, held = ranges.last(), self._in_hand.get(key)
        position = last.last + 1 if last else 0
        if last:  # whoever wrote it may have ended before it looked for new erasures
            self._erase(key, last, self._erasures.before)
        if position > end:
            raise UsageError(
                f"the archive of {key.topic}, partition {key.partition}, goes to offset {position - 1}, the broker's "
                f"topic only to {end - 1}: the topic was made anew. Move {self._folder} away, or set [archive] folder"
            )
        if held and held.first == position:
            if held.next >= beginning:
                return held.next
            now_ms = self._clock_ms()
            position = self._write(key, held.gathered(now_ms), now_ms)  # the broker has these no more
        if position < beginning:
            _log.warning("%s, partition %d: the broker no longer has offsets %d to %d", *key, position, beginning - 1)
            position = ranges.commit_absent(beginning - 1).last + 1
        self._in_hand[key] = InHand(position, self._columns[key.topic])
        return position

    def _write(self, key: Key, gathered: Gathered, now_ms: int) -> int:
        self.erase_new()
        self._send([row.letter for row in gathered.refused if not _is_erased(row, self._erasures.before)])
        rows = without_erased(gathered.rows, key.topic, self._erasures.before)
        erased = gathered.rows.num_rows - rows.num_rows
        skew_ms = self._skews_ms.get(key.topic, DAY_MS)
        days = split_by_day(rows, ARCHIVED[key.topic].time_field, now_ms=now_ms, skew_ms=skew_ms)
        ranges = self._ranges[key]
        left_out = gathered.left_out + LeftOut(erased=erased)
        with monitoring.ARCHIVE_WRITE_SECONDS.labels(key.topic).time():
            try:
                manifest = ranges.commit(gathered.first, gathered.last, days, left_out)
            except OSError as error:
                raise KeenstreamError(
                    f"the archive in {self._folder} cannot be written ({error.strerror}): nothing is lost; it goes on "
                    "from there once there is space and the right to write, on a file system with hard links"
                ) from error
            except RangeTaken:
                _log.warning("%s, partition %d: another worker was first at offset %d", *key, gathered.first)
                ranges.settle()
                position = ranges.position()
            else:
                position = manifest.last + 1
                _count(key, manifest)
        self._in_hand[key] = InHand(position, self._columns[key.topic])
        self._erase_late(key)
        return position

    def _erase_late(self, key: Key) -> None:
        """An erasure that came while the range was written: who asked for it looked for files too early to see it."""
        try:
            self.erase_new()
        except RetryableError:
            _log.warning("new erasures are looked for again before the next range is written")

    def _erase(self, key: Key, manifest: Manifest, erasures: Erasures) -> None:
        paths = [self._folder / key.topic / file.name for file in manifest.files]
        erase_rows(self._folder, key.topic, paths, erasures)


def _is_erased(row: Refused, erasures: Erasures) -> bool:
    """It was there before the wish of the reader whose key it has, so no letter may bring its bytes back."""
    return row.key is not None and row.arrived_ms <= erasures.get(row.key.decode(errors="replace"), -1)


def _count(key: Key, manifest: Manifest) -> None:
    monitoring.ARCHIVE_ROWS.labels(key.topic).inc(manifest.rows)
    monitoring.ARCHIVE_FILES.labels(key.topic).inc(len(manifest.files))
    for name in manifest.left_out.__struct_fields__:
        monitoring.ARCHIVE_LEFT_OUT.labels(key.topic, name).inc(getattr(manifest.left_out, name))
    monitoring.DEAD_LETTERS.labels("archive").inc(manifest.left_out.undecodable)
