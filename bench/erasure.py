"""How long the erasure of one reader takes, among many whose profiles and queries are stored.

    keenstream bench erasure --readers 100000 --erasures 30

Real Kafka and Milvus, the workers `profiles`, `signals` and `interests` as processes; the profile worker restores all
profiles first, and no model runs, because an erasure needs none. Readers are erased one after another by the service
that the command and the API use. Online: from the call until profile, requests, lists and stored queries are clean and
the store was searched again; whole: with the dead letters, which are read all. `keenstream bench archive` reports the
rewriting of files.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench._machine import Machine, this_machine
from bench._reader_world import open_store
from bench._worker import worker
from keenstream.stack.kafka import kafka_server
from keenstream.stack.milvus import milvus_server
from schemas.clients.milvus import MilvusStore
from schemas.clients.vector_store import SIGNAL_SLOTS, STUDENT_SLOTS, SlotWrite, UserQuery, Vectors
from schemas.config import Config, Kafka, Milvus
from schemas.erasure import ErasureReceipt, StoreReceipt, is_done
from schemas.errors import KeenstreamError
from schemas.names import EMBEDDING_DIMENSIONS, Topic
from schemas.profile import Signal, UserProfile
from stream.clock import now_ms
from stream.dead_letters import dead_letter
from stream.erasure.service import EraseService
from stream.producer import KafkaProducer, Outgoing
from stream.profiles.record import ProfileRecord, encode_record
from stream.topics import all_topics
from stream.transport import Record, create_topics

SIGNALS = 12  # in each profile
CHUNK = 1_000
DAY_MS = 86_400_000
READY_SECONDS = 300.0

console = Console(highlight=False, stderr=True)
output = Console(highlight=False)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    readers: int
    rows: int
    letters: int
    erasures: int


class ErasureReport(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one erasure. `signals` and `rows` were found and removed, of all that were erased."""

    machine: Machine
    readers: int
    stored_rows: int
    letters: int
    erasures: int
    online_p50: float
    online_p95: float
    online_most: float
    whole_p50: float
    whole_most: float
    signals: int
    rows: int


def main(
    readers: Annotated[int, typer.Option(min=10, help="With a profile and stored queries.")] = 100_000,
    rows: Annotated[int, typer.Option(min=2, max=10, help="Stored queries of each, half of them the student's.")] = 4,
    letters: Annotated[int, typer.Option(min=0, help="Dead letters of all readers.")] = 10_000,
    erasures: Annotated[int, typer.Option(min=1, help="Readers to erase, one after another.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Measure erasures. Example: `keenstream bench erasure --readers 100000 --erasures 30`"""
    report = measure(Plan(readers=readers, rows=rows, letters=letters, erasures=min(erasures, readers)))
    title = f"Erasure of one reader among {report.readers:,} ({report.stored_rows:,} stored queries)"
    table = Table("", "p50", "p95", "most", title=title)
    online = (report.online_p50, report.online_p95, report.online_most)
    table.add_row("online, s", *(f"{seconds:.2f}" for seconds in online))
    table.add_row("with dead letters, s", f"{report.whole_p50:.2f}", "", f"{report.whole_most:.2f}")
    output.print(table)
    output.print(
        f"{report.erasures} readers: {report.signals:,} signals and {report.rows:,} stored queries removed; "
        f"{report.letters:,} dead letters were read each time"
    )
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def measure(plan: Plan) -> ErasureReport:
    with TemporaryDirectory(prefix="keenstream-bench-erasure-") as scratch:
        folder = Path(scratch)
        console.print("starting Kafka and Milvus")
        with kafka_server(folder / "kafka") as kafka, milvus_server(folder / "milvus") as milvus:
            config = Config(kafka=Kafka(bootstrap=kafka.bootstrap), milvus=Milvus(uri=milvus.uri))
            create_topics(config.kafka, all_topics(config))
            asyncio.run(_fill(config, plan))
            with ExitStack() as workers:
                for name in ("profiles", "signals", "interests"):
                    workers.enter_context(worker(name, config, folder))
                return asyncio.run(_measure(config, plan))


async def _fill(config: Config, plan: Plan) -> None:
    """What the workers would have stored, without their models."""
    start, random = now_ms() - DAY_MS, np.random.default_rng(1)
    chunks = range(0, plan.readers, CHUNK)
    async with open_store(config) as store, KafkaProducer(config.kafka) as producer:
        await store.prepare()
        for first in track(chunks, "storing readers", console=console):
            users = [_reader(number) for number in range(first, min(first + CHUNK, plan.readers))]
            await producer.send([_profile_row(user, start) for user in users])
            await store.write_user_queries([write for user in users for write in _writes(user, plan.rows, random)])
        await producer.send([_letter(number, plan.readers) for number in range(plan.letters)])


def _reader(number: int) -> str:
    return f"reader-{number:06d}"


def _profile_row(user: str, start: int) -> Outgoing:
    signals = tuple(Signal(start + at, f"{user}-{at}", f"what {user} searched for, {at}") for at in range(SIGNALS))
    row = encode_record(ProfileRecord(UserProfile(user, search=signals)))
    return Outgoing(Topic.PROFILES_CHANGELOG, user.encode(), row)


def _writes(user: str, rows: int, random: np.random.Generator) -> Iterator[SlotWrite]:
    vectors = random.normal(size=(rows, EMBEDDING_DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    half = rows // 2
    for slots, own in ((STUDENT_SLOTS, vectors[:half]), (SIGNAL_SLOTS, vectors[half:])):
        yield SlotWrite(user_id=user, slots=slots, rows=_rows(user, slots, own))


def _rows(user: str, slots: range, vectors: Vectors) -> tuple[UserQuery, ...]:
    now = now_ms()
    return tuple(
        UserQuery(
            user_id=user,
            slot=slot,
            source="student" if slots == STUDENT_SLOTS else "signals",
            query=f"query {slot} of a reader",
            embedding=vector,
            profile_fingerprint="",
            model="bench",
            model_version="1",
            prompt_version="1",
            generated_at=now,
            expires_at=now + DAY_MS,
        )
        for slot, vector in zip(slots, vectors, strict=False)
    )


def _letter(number: int, readers: int) -> Outgoing:
    user = _reader(number % readers).encode()
    record = Record(Topic.USER_EVENTS, 0, number, 0, user, b'{"user_id": "' + user + b'", "kind": "purchase"}')
    return dead_letter(record, stage="bench", reason="Invalid enum value", failed_at_ms=now_ms())


async def _measure(config: Config, plan: Plan) -> ErasureReport:
    async with open_store(config) as store, KafkaProducer(config.kafka) as producer:
        service = EraseService(config, store, producer, now_ms, erase_archive=_no_archive)
        console.print("waiting for the workers")
        _completed(await service.erase("not-a-reader", wait_seconds=READY_SECONDS))
        stored = (await store.count()).user_queries
        chosen = np.random.default_rng(2).choice(plan.readers, plan.erasures, replace=False)
        receipts, whole = [], []
        for number in track(chosen, "erasing", console=console):
            started = time.monotonic()
            receipts.append(_completed(await service.erase(_reader(int(number)))))
            whole.append(time.monotonic() - started)
        await _check_store(store, plan, stored)
    return _report(plan, stored, receipts, whole)


def _no_archive(user_id: str, erased_before: int) -> StoreReceipt:
    return StoreReceipt(store="archive", state="absent", unit="rows")


def _completed(receipt: ErasureReceipt) -> ErasureReceipt:
    if not receipt.complete:
        late = "; ".join(f"{row.store} is {row.state}: {row.detail}" for row in receipt.stores if not is_done(row))
        raise KeenstreamError(f"an erasure was not completed in {receipt.online_seconds:.1f} s: {late}")
    return receipt


async def _check_store(store: MilvusStore, plan: Plan, stored: int) -> None:
    left = (await store.count()).user_queries
    if left != stored - plan.erasures * plan.rows:
        raise KeenstreamError(f"{left} of {stored} rows are left after {plan.erasures} erasures")


def _report(plan: Plan, stored: int, receipts: Sequence[ErasureReceipt], whole: Sequence[float]) -> ErasureReport:
    online = [receipt.online_seconds for receipt in receipts]
    return ErasureReport(
        machine=this_machine(),
        readers=plan.readers,
        stored_rows=stored,
        letters=plan.letters,
        erasures=plan.erasures,
        online_p50=float(np.quantile(online, 0.5)),
        online_p95=float(np.quantile(online, 0.95)),
        online_most=max(online),
        whole_p50=float(np.quantile(whole, 0.5)),
        whole_most=max(whole),
        signals=_removed(receipts, "profile"),
        rows=_removed(receipts, "queries"),
    )


def _removed(receipts: Sequence[ErasureReceipt], name: str) -> int:
    return sum(store.removed or 0 for receipt in receipts for store in receipt.stores if store.store == name)


if __name__ == "__main__":
    typer.run(main)
