"""The live view of a run, and the command's shell around the player."""

import asyncio
import time
import uuid
from random import Random
from typing import Final

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from keenstream.live.asking import Asking
from keenstream.live.player import LivePlayer, LiveSettings
from keenstream.live.tally import LiveSummary, LiveTally, RateRow
from keenstream.live.world import LiveWorld

_REFRESH_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 15.0


def new_run() -> str:
    """A name that no other run has."""
    return uuid.uuid4().hex[:8]


def play(
    settings: LiveSettings, world: LiveWorld, *, api: str, headers: dict[str, str], seed: int, console: Console
) -> tuple[LiveSummary, bool]:
    """Until the time is over or Ctrl-C; the summary either way, and whether it was Ctrl-C."""
    tally, began = LiveTally(), time.monotonic()
    interrupted = False
    try:
        asyncio.run(_play(settings, world, tally, api=api, headers=headers, seed=seed, console=console))
    except KeyboardInterrupt:
        interrupted = True
    return tally.summary(time.monotonic() - began), interrupted


async def _play(
    settings: LiveSettings,
    world: LiveWorld,
    tally: LiveTally,
    *,
    api: str,
    headers: dict[str, str],
    seed: int,
    console: Console,
) -> None:
    rng, began = Random(seed), time.monotonic()
    limits = httpx.Limits(max_connections=settings.concurrency)
    async with httpx.AsyncClient(base_url=api, headers=headers, timeout=_TIMEOUT_SECONDS, limits=limits) as client:
        asking = Asking(client, tally, rng, sleep=asyncio.sleep, monotonic=time.monotonic)
        player = LivePlayer(
            settings, world, asking, tally, rng, clock_ms=lambda: int(time.time() * 1000), sleep=asyncio.sleep
        )
        with Live(console=console, transient=True, auto_refresh=False) as live:
            drawing = asyncio.create_task(_draw(live, tally, began))
            try:
                await player.run()
            finally:
                drawing.cancel()


async def _draw(live: Live, tally: LiveTally, began: float) -> None:
    while True:
        live.update(as_text(tally.summary(time.monotonic() - began)), refresh=True)
        await asyncio.sleep(_REFRESH_SECONDS)


def as_text(found: LiveSummary) -> Group:
    """Four lines and a table."""
    latency = ", ".join(f"{name} {value:.0f} ms" for name, value in found.latency_ms.items()) or "none yet"
    errors = ", ".join(f"{name}: {count:,}" for name, count in found.errors.items()) or "none"
    lines = [
        f"{found.seconds:.0f} s, {found.visits:,} visits, {found.requests:,} requests, "
        f"{found.requests_per_second:.1f}/s",
        f"latency: {latency}",
        f"errors: {errors}; given up: {found.given_up:,}",
        f"readers not known yet: {found.unknown_readers:,}",
    ]
    table = Table("clicks", "shown", "clicked", "rate")
    for kind, rows in (("arm", found.by_arm), ("source", found.by_source)):
        for name, row in rows.items():
            table.add_row(f"{kind} {name}", *_cells(row))
    return Group(*map(Text, lines), *([table] if table.row_count else []))


def _cells(row: RateRow) -> tuple[str, str, str]:
    return f"{row.shown:,}", f"{row.clicks:,}", "none shown" if row.ctr is None else f"{row.ctr:.2%}"
