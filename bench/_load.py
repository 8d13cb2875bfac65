"""An open-loop load on the API, in a process of its own: requests leave at fixed times whether or not earlier ones have
been answered, and a latency counts from the time at which its request should have left.

    python -m bench._load http://127.0.0.1:8080 5000 --rate 100 --seconds 60
"""

import asyncio
import random
import sys
import time
from typing import Annotated

import aiohttp
import msgspec
import typer
import uvloop

EVENTS_PER_POST = 20
TIMEOUT_SECONDS = 10.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen from outside. Latencies are in seconds."""

    candidates: list[float]
    events: list[float]
    errors: list[str]
    stale: int
    late_sends: list[float]  # how much later than intended each request left: the generator's own fault


class _Generator:
    def __init__(self, session: aiohttp.ClientSession, url: str, readers: int, seed: int) -> None:
        self._session, self._url, self._readers, self._random = session, url, readers, random.Random(seed)
        self.load = Load(candidates=[], events=[], errors=[], stale=0, late_sends=[])
        self.stale = 0

    def reader(self) -> str:
        return reader_id(self._random.randrange(self._readers))

    async def ask(self, intended: float) -> None:
        async with self._session.get(f"{self._url}/v1/users/{self.reader()}/candidates?k=10") as response:
            data = await response.read()
            self.load.candidates.append(time.perf_counter() - intended)
            found = msgspec.json.decode(data)
            if response.status != 200 or not found["candidates"]:
                self.load.errors.append(f"candidates: {response.status}")
            elif found["stale"]:
                self.stale += 1

    async def send(self, intended: float) -> None:
        now_ms = time.time_ns() // 1_000_000
        events = [
            {
                "event_id": f"{now_ms}-{self._random.getrandbits(64):x}",
                "user_id": self.reader(),
                "kind": self._random.choice(["page", "search"]),
                "text": f"topic {self._random.randrange(400)} and word {self._random.randrange(10_000)}",
                "occurred_at": now_ms,
            }
            for _ in range(EVENTS_PER_POST)
        ]
        async with self._session.post(
            f"{self._url}/v1/events", data=msgspec.json.encode({"events": events})
        ) as response:
            taken = msgspec.json.decode(await response.read())
            self.load.events.append(time.perf_counter() - intended)
            if response.status != 200 or taken["accepted"] != EVENTS_PER_POST:
                self.load.errors.append(f"events: {response.status}")

    async def guarded(self, intended: float, call: str) -> None:
        self.load.late_sends.append(time.perf_counter() - intended)
        try:
            await (self.ask(intended) if call == "ask" else self.send(intended))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.load.errors.append(f"{call}: {type(error).__name__}")


def reader_id(number: int) -> str:
    return f"bench-{number:05d}"


async def generate(url: str, readers: int, rate: float, events_rate: float, seconds: float, seed: int) -> Load:
    """Both streams of requests, side by side."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        generator = _Generator(session, url, readers, seed)
        started = time.perf_counter() + 0.1
        streams = [_stream(generator, "ask", rate, seconds, started)]
        if events_rate:
            streams.append(_stream(generator, "send", events_rate / EVENTS_PER_POST, seconds, started))
        await asyncio.gather(*streams)
        return msgspec.structs.replace(generator.load, stale=generator.stale)


async def _stream(generator: _Generator, call: str, rate: float, seconds: float, started: float) -> None:
    async with asyncio.TaskGroup() as waiting:
        for number in range(int(rate * seconds)):
            intended = started + number / rate
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            waiting.create_task(generator.guarded(intended, call))


def main(
    url: str,
    readers: int,
    rate: Annotated[float, typer.Option()] = 100.0,
    events_rate: Annotated[float, typer.Option()] = 200.0,
    seconds: Annotated[float, typer.Option()] = 60.0,
    seed: Annotated[int, typer.Option()] = 7,
) -> None:
    """Print what was seen as JSON."""
    load = uvloop.run(generate(url, readers, rate, events_rate, seconds, seed))
    sys.stdout.buffer.write(msgspec.json.encode(load))


if __name__ == "__main__":
    typer.run(main)
