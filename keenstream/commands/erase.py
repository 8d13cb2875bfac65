"""`keenstream erase USER`: forget a reader, with a receipt; `--verify` searches everything again."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json, step_progress
from keenstream.commands.moments import FORMS, moment_ms, told
from schemas.erasure import ErasureReceipt, ErasureSearch, StoreReceipt, StoreSearch
from schemas.errors import KeenstreamError, UsageError

if TYPE_CHECKING:
    from schemas.clients.milvus import MilvusStore
    from schemas.config import Config

Step = Callable[[str], None]


def erase(
    user: Annotated[str, typer.Argument(help="The reader's user_id.")],
    before: Annotated[str, typer.Option(help=f"Only what happened until then: {FORMS}. Default: everything.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Erase nothing: search all stores for what is left. Exit code 1 if any.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the workers.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Forget a reader: profile, requests, lists, stored queries, dead letters and archive files.

    The wish is stored in Kafka before anything else, so the workers carry it out also after a crash, and late events of
    before it do not bring the reader back. What is kept of the reader is the id and the time. Exit code 1 while
    something is under way: erase again, or see `--verify`.

    Example: `keenstream erase reader-000001 --yes`
    """
    from keenstream.settings import resolve_config

    config = resolve_config()
    if verify:
        if before:
            raise UsageError("--verify searches for what the newest erasure covers; leave out --before")
        _report_search(asyncio.run(_search(config, user)), as_json)
        return
    before_ms = moment_ms(before, option="--before", now_ms=time.time_ns() // 1_000_000) if before else None
    _confirm(user, yes)
    _report(asyncio.run(_erase(config, user, before_ms, wait)), as_json)


def _confirm(user: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("an erasure cannot be undone: say --yes where nobody can be asked")
    if not typer.confirm(f"Erase everything known of {user}? This cannot be undone.", err=True):
        raise typer.Abort


async def _erase(config: "Config", user: str, before_ms: int | None, wait: float) -> ErasureReceipt:
    from keenstream.settings import archive_folder
    from schemas.codecs import open_codecs
    from schemas.names import Topic
    from stream.clock import now_ms
    from stream.erasure.files import erase_files
    from stream.erasure.service import EraseService
    from stream.producer import KafkaProducer

    codecs = await asyncio.to_thread(open_codecs, config, (Topic.ERASURES,))
    async with AsyncExitStack() as opened:
        on_step = opened.enter_context(step_progress("erase"))
        store = await _store(config, opened)
        producer = await opened.enter_async_context(KafkaProducer(config.kafka))
        files = partial(erase_files, archive_folder(config), on_file=lambda path: on_step(f"archive: {path}"))
        service = EraseService(config, store, producer, now_ms, erase_archive=files, codecs=codecs)
        return await service.erase(user, before_ms=before_ms, wait_seconds=wait, on_step=on_step)


async def _search(config: "Config", user: str) -> ErasureSearch:
    from keenstream.settings import archive_folder
    from schemas.codecs import open_codecs
    from stream.clock import now_ms
    from stream.erasure.search import search_reader

    codecs = await asyncio.to_thread(open_codecs, config)
    async with AsyncExitStack() as opened:
        on_step = opened.enter_context(step_progress("search"))
        store = await _store(config, opened)
        folder = archive_folder(config)
        return await search_reader(config, store, user, clock_ms=now_ms, archive=folder, codecs=codecs, on_step=on_step)


async def _store(config: "Config", opened: AsyncExitStack) -> "MilvusStore":
    from schemas.clients.milvus import MilvusStore

    store = MilvusStore(config.milvus)
    opened.push_async_callback(store.close)
    return store


def _report(receipt: ErasureReceipt, as_json: bool) -> None:
    if as_json:
        print_json(receipt)
    else:
        _print_receipt(receipt)
    if not receipt.complete:
        waiting = ", ".join(row.store for row in receipt.stores if row.state in ("under way", "left"))
        raise KeenstreamError(
            f"not all is done yet: {waiting}. The wish is stored and the workers carry it out when they run; "
            "`keenstream erase --verify USER` searches again"
        )


def _print_receipt(receipt: ErasureReceipt) -> None:
    table = Table("store", "state", "found", "removed", "until (UTC)", title="Receipt", title_justify="left")
    for row in receipt.stores:
        until = told(row.gone_by) if row.gone_by else ""
        table.add_row(row.store, row.state, _count(row.found, row.unit), _count(row.removed, row.unit), until)
    console.print(table)
    _print_notes({row.store: "; ".join(filter(None, (row.detail, _files(row)))) for row in receipt.stores})
    if any(row.gone_by for row in receipt.stores):
        console.print(
            "until: by then Kafka has dropped what its logs still hold (kept: by the retention of its topic)."
        )
    found = "" if receipt.found_anything else "Nothing was found of this reader. "
    console.print(
        f"{found}Nothing from before {told(receipt.erased_before)} UTC is taken any more; "
        f"what serves readers took {receipt.online_seconds:.1f} s."
    )


def _print_notes(notes: Mapping[str, str]) -> None:
    """Each once, behind the stores that it is about."""
    for note in dict.fromkeys(filter(None, notes.values())):
        console.print(f"{', '.join(name for name in notes if notes[name] == note)}: {note}", soft_wrap=True)


def _files(row: StoreReceipt) -> str:
    seconds = f" in {row.seconds:.1f} s" if row.seconds is not None else ""
    return f"{len(row.files)} files rewritten{seconds}" if row.files else ""


def _count(count: int | None, unit: str) -> str:
    return "" if count is None else f"{count:,} {unit}"


def _report_search(search: ErasureSearch, as_json: bool) -> None:
    if as_json:
        print_json(search)
    else:
        _print_search(search)
    if not search.clean:
        raise KeenstreamError(
            "something is left, or could not be searched, of this reader; see above, then erase again"
        )


def _print_search(search: ErasureSearch) -> None:
    table = Table("store", "left", "waits to be dropped", "until (UTC)", title="Search", title_justify="left")
    for row in search.stores:
        until = told(row.gone_by) if row.gone_by else ""
        table.add_row(row.store, _left(row), f"{row.waiting:,}" if row.waiting else "", until)
    console.print(table)
    _print_notes({row.store: row.detail for row in search.stores})
    asked = (
        f"erased up to {told(search.erased_before)} UTC" if search.erased_before else "nobody has asked to erase them"
    )
    console.print(f"This reader: {asked}; {'nothing is left' if search.clean else 'not clean'}.")


def _left(row: StoreSearch) -> str:
    return "?" if row.left is None else f"{row.left:,} {row.unit}"
