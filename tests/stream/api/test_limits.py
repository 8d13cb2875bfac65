"""What one caller may ask: rates, deadlines, sizes, slow clients."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from keenstream.stack.ports import free_port
from schemas.config import Api
from stream.api.access import key_line, new_key
from stream.api.limits import Deadline, Rates, bounded_protocol
from tests.stream.api.conftest import World

FIRST, SECOND = new_key(), new_key()


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 20), st.integers(1, 10))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], per_second: float, burst: int) -> None:
    now = 0.0
    rates = Rates(per_second, burst, monotonic=lambda: now)
    passed = 0
    for pause in pauses:
        now += pause
        passed += rates.take("ann") == 0
        assert passed <= burst + now * per_second + 1e-6


@given(st.floats(0.5, 20), st.integers(1, 10))
def test_who_waits_as_told_passes(per_second: float, burst: int) -> None:
    now = 0.0
    rates = Rates(per_second, burst, monotonic=lambda: now)
    for _ in range(burst):
        assert rates.take("ann") == 0
    wait = rates.take("ann")
    assert 0 < wait <= 1 / per_second
    now += wait + 1e-9
    assert rates.take("ann") == 0


def test_callers_do_not_share_and_the_quiet_ones_are_forgotten() -> None:
    rates = Rates(1.0, 1, callers=2, monotonic=lambda: 0.0)
    assert rates.take("a") == 0 and rates.take("b") == 0
    assert rates.take("a") > 0
    assert rates.take("c") == 0  # b is forgotten, a was here since
    assert rates.take("a") > 0 and rates.take("b") == 0


def test_a_rate_of_zero_is_no_limit() -> None:
    rates = Rates(0.0, 1)
    assert [rates.take("a") for _ in range(100)] == [0.0] * 100


class TestRate:
    @pytest.fixture
    def settings(self) -> Api:
        lines = (key_line("first", ["read"], FIRST), key_line("second", ["read"], SECOND))
        return Api(keys=lines, requests_per_second=0.01, request_burst=2)

    async def test_each_key_has_its_own_share(self, world: World) -> None:
        async def status(key: str, path: str = "/v1/users/ann/profile") -> int:
            return (await world.client.get(path, headers={"x-api-key": key})).status_code

        assert [await status(FIRST) for _ in range(4)] == [404, 404, 429, 429]
        assert [await status(SECOND) for _ in range(3)] == [404, 404, 429]
        assert [await status("wrong") for _ in range(3)] == [401, 401, 429]  # by address
        assert [await status("wrong", "/nowhere") for _ in range(2)] == [429, 429]
        assert [await status("wrong", "/healthz") for _ in range(5)] == [200] * 5

    async def test_a_refusal_says_when_to_come_again(self, world: World) -> None:
        for _ in range(3):
            response = await world.client.get("/v1/users/ann/profile", headers={"x-api-key": FIRST})
        assert (response.status_code, response.headers["retry-after"]) == (429, "100")
        assert "wait 100 s" in response.json()["detail"]


class TestDeadline:
    @pytest.fixture
    def settings(self) -> Api:
        return Api(request_seconds=0.05)

    async def test_a_slow_part_is_a_clear_504(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(world.embedder, "embed", lambda texts: asyncio.sleep(60))
        response = await world.client.post("/v1/search", json={"query": "rain"})
        assert response.status_code == 504
        assert "no answer in 0.05 s" in response.json()["detail"]
        assert response.headers["retry-after"]

    async def test_a_body_that_does_not_come_is_a_408(self, world: World) -> None:
        async def slow() -> AsyncIterator[bytes]:
            yield b'{"events"'
            await asyncio.sleep(60)

        response = await world.client.post("/v1/events", content=slow())
        assert response.status_code == 408
        assert "the body did not come" in response.json()["detail"]

    async def test_the_next_request_is_served(self, world: World) -> None:
        assert (await world.client.get("/healthz")).status_code == 200


async def test_a_stream_that_has_begun_is_not_cut() -> None:
    app = FastAPI()
    app.add_middleware(Deadline, seconds=0.05)

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for number in range(4):
                await asyncio.sleep(0.03)
                yield f"{number}\n"

        return StreamingResponse(lines())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        assert (await client.get("/stream")).text == "0\n1\n2\n3\n"


@contextmanager
def served(header_seconds: float) -> Iterator[int]:
    """A bare app behind the bounded protocol, in a thread; its port."""
    app, port = FastAPI(), free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, http=bounded_protocol(header_seconds), log_config=None, timeout_keep_alive=60)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join()


REQUEST = b"GET /docs HTTP/1.1\r\nhost: api\r\n\r\n"


@pytest.mark.parametrize("beginnings", [[b""], [b"GET /docs HTTP/1.1\r\nx-a: "], [REQUEST, b"GET /do"]])
async def test_headers_that_do_not_come_close_the_connection(beginnings: list[bytes]) -> None:
    with served(0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for text in beginnings:
            writer.write(text)
            await writer.drain()
            if text == REQUEST:
                assert (await reader.readuntil(b"</html>")).startswith(b"HTTP/1.1 200")
        assert (await asyncio.wait_for(reader.read(), 30)).strip() == b""  # closed by the server
        writer.close()


async def test_a_connection_that_asks_again_is_kept() -> None:
    with served(0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"</html>")).strip().startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)  # longer than headers may take: between requests only keep-alive counts
        writer.close()


async def test_headers_without_an_end_are_refused() -> None:
    with served(60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /docs HTTP/1.1\r\n")
        answered = asyncio.create_task(reader.readline())
        for number in range(200):
            if answered.done():  # what is sent to a connection that was closed would reset it, the answer included
                break
            writer.write(f"x-{number}: {'a' * 1_000}\r\n".encode())
            await asyncio.sleep(0.002)
        assert (await asyncio.wait_for(answered, 30)).startswith(b"HTTP/1.1 4")
        writer.close()
