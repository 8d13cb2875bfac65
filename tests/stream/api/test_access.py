"""API keys: what a key may do, what is kept of it, and when one stops to work."""

import logging
import os
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Api
from schemas.errors import UsageError
from stream.api.access import SCOPES, KeyRing, digest_of, find_key, key_line, new_key, parse_keys
from tests.stream.api.conftest import World, body, event

READ, WRITE, ERASE, ALL = new_key(), new_key(), new_key(), new_key()
LINES = (
    key_line("reader", ["read"], READ),
    key_line("writer", ["write"], WRITE),
    key_line("eraser", ["erase"], ERASE),
    key_line("everything", SCOPES, ALL),
)
ROUTES = [
    ("POST", "/v1/events", "write"),
    ("GET", "/v1/users/ann/candidates", "read"),
    ("GET", "/v1/users/ann/queries", "read"),
    ("GET", "/v1/users/ann/profile", "read"),
    ("POST", "/v1/search", "read"),
]
KEYS = {"read": READ, "write": WRITE, "erase": ERASE}


def headers(key: str) -> dict[str, str]:
    return {"x-api-key": key}


class TestLocked:
    @pytest.fixture
    def settings(self) -> Api:
        return Api(keys=LINES)

    @pytest.mark.parametrize("key", [None, "wrong", "", "ключ", "the hash", "a part"])
    @pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
    async def test_without_a_key_nothing_is_told(
        self, world: World, key: str | None, method: str, path: str, scope: str
    ) -> None:
        sent = {"the hash": digest_of(READ), "a part": READ[:-1]}.get(key or "", key)
        given = {} if sent is None else {b"x-api-key": sent.encode()}
        response = await world.client.request(method, path, headers=given, content=body(event()))
        assert (response.status_code, response.headers["www-authenticate"]) == (401, 'ApiKey header="x-api-key"')
        assert "keenstream api-key create" in response.json()["detail"]
        assert world.producer.sent == []

    @pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
    async def test_a_key_without_the_scope_is_told_which(
        self, world: World, method: str, path: str, scope: str
    ) -> None:
        for key in (KEYS[other] for other in KEYS if other != scope):
            response = await world.client.request(method, path, headers=headers(key), content=body(event()))
            assert response.status_code == 403
            assert f"the scope {scope}" in response.json()["detail"]
        assert world.producer.sent == []

    @pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
    async def test_with_the_scope_it_works(self, world: World, method: str, path: str, scope: str) -> None:
        world.know("ann")
        content = body(event()) if path == "/v1/events" else b'{"query": "rain"}'
        for key in (KEYS[scope], ALL):
            response = await world.client.request(method, path, headers=headers(key), content=content)
            assert response.status_code == 200, response.text

    async def test_the_document_says_which_scope(self, world: World) -> None:
        document = (await world.client.get("/openapi.json")).json()
        assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "x-api-key"
        assert document["paths"]["/v1/events"]["post"]["security"] == [{"ApiKey": ["write"]}]
        assert document["paths"]["/v1/search"]["post"]["security"] == [{"ApiKey": ["read"]}]
        assert {"401", "403", "429", "504"} <= set(document["paths"]["/v1/search"]["post"]["responses"])

    async def test_names_of_keys_are_counted_and_keys_are_not_shown(self, world: World) -> None:
        await world.client.get("/v1/users/ann/profile", headers=headers(READ))
        text = (await world.client.get("/metrics")).text
        assert 'keenstream_api_requests_total{key="reader",status="404"}' in text
        assert READ not in text and digest_of(READ) not in text

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
    async def test_on_this_machine_operations_are_free(self, world: World, path: str) -> None:
        assert (await world.client.get(path)).status_code == 200


class TestForOthers:
    @pytest.fixture
    def settings(self) -> Api:
        return Api(host="0.0.0.0", keys=LINES, access_log=True)

    async def test_only_the_health_is_free(self, world: World) -> None:
        for path in ("/readyz", "/metrics"):
            assert (await world.client.get(path)).status_code == 401
            assert (await world.client.get(path, headers=headers(WRITE))).status_code == 403
            assert (await world.client.get(path, headers=headers(READ))).status_code == 200
        assert (await world.client.get("/healthz")).status_code == 200

    async def test_the_access_log_names_the_key_and_no_reader(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "stream"):
            await world.client.get("/v1/users/secret-reader/profile", headers=headers(READ))
        text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("stream"))
        assert "GET /v1/users/{user_id" in text and "404" in text and "key reader" in text
        assert "secret-reader" not in text and READ not in text


@given(st.lists(st.sampled_from(SCOPES), min_size=1), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_a_line_says_what_was_asked_for(scopes: list[str], name: str) -> None:
    key = new_key()
    (found,) = parse_keys([key_line(name, scopes, key)], "keys")
    assert (found.name, set(found.scopes)) == (name, set(scopes))
    assert find_key([found], key) == found
    assert key not in repr(found)


def test_a_key_is_32_random_bytes_and_only_its_hash_is_kept() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    assert all(len(new_key()) == 43 for _ in range(10))  # 32 bytes in base64
    assert READ not in LINES[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("recommender read", "NAME SCOPE"),
        ("recommender read+admin sha256:" + "0" * 64, "the scopes are read, write, erase"),
        ("recommender  sha256:" + "0" * 64, "NAME SCOPE"),
        (f"recommender read {READ}", "never the key itself"),
        ("recom/mender read sha256:" + "0" * 64, "letters"),
        (LINES[0], "two keys named reader"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_and_not_repeated(line: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        parse_keys(["# ours", "", LINES[0], line], "keys.txt")
    assert "keys.txt, line 4" in str(raised.value)
    assert READ not in str(raised.value)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# ours\n" + "\n".join(LINES[:2]) + "\n")
    path.chmod(0o600)
    return path


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


def test_removing_a_line_revokes_the_key_of_a_running_server(keys_file: Path) -> None:
    ring = KeyRing(Api(keys_file=str(keys_file), keys=(LINES[3],)), Seconds())
    assert [bool(ring.find(key)) for key in (READ, WRITE, ALL)] == [True, True, True]
    keys_file.write_text(LINES[1] + "\n")
    assert [bool(ring.find(key)) for key in (READ, WRITE, ALL)] == [False, True, True]
    keys_file.write_text("")
    assert [bool(ring.find(key)) for key in (READ, WRITE, ALL)] == [False, False, True]


def test_a_file_that_a_change_broke_leaves_the_last_keys(keys_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing(Api(keys_file=str(keys_file)), Seconds())
    keys_file.write_text(f"reader read {READ}\n")
    assert ring.find(READ) and ring.find(WRITE)
    assert "line 1" in caplog.text and READ not in caplog.text
    keys_file.unlink()
    assert ring.find(READ)
    assert "cannot read" in caplog.text


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_keys_file_that_everybody_may_read_is_refused(keys_file: Path, mode: int, refused: bool) -> None:
    os.chmod(keys_file, mode)
    if not refused:
        assert KeyRing(Api(keys_file=str(keys_file))).find(READ)
        return
    with pytest.raises(UsageError, match=f"chmod o= {keys_file}"):
        KeyRing(Api(keys_file=str(keys_file)))


async def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    world = World(Api(keys_file=str(path)))
    async with world.client:
        response: httpx.Response = await world.client.get("/v1/users/ann/profile", headers=headers(READ))
        assert response.status_code == 401
