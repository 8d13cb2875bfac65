"""`keenstream schemas` without a broker, against a registry on 127.0.0.1."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

import schemas
from keenstream.commands import application
from keenstream.commands.schemas import check_records, publish_into, register_all
from schemas.avro.published import published
from schemas.codecs import open_codecs
from schemas.config import Config, Registry
from schemas.contracts import CONTRACTS
from schemas.errors import KeenstreamError, Unavailable, UsageError
from schemas.event import Event
from schemas.names import Topic
from tests.schemas.local_registry import LocalRegistry, local_registry

APP = application()
PACKAGE = Path(schemas.__file__ or "").parent
EVENT = Event(event_id="e1", user_id="u1", kind="search", text="roses", occurred_at=1)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRegistry]:
    with local_registry() as started:
        yield started


@pytest.fixture
def local(server: LocalRegistry) -> LocalRegistry:
    server.reset()
    return server


@pytest.fixture
def config(local: LocalRegistry) -> Config:
    return Config(registry=Registry(url=local.url, format="avro"))


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(APP, ["schemas", *arguments], env={"COLUMNS": "200", **environment})


@pytest.mark.parametrize("command", ["check", "publish", "register", "export"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"keenstream schemas {command}" in result.output.split("Usage", 1)[1].split("\n", 1)[1]


def test_check_compares_structs_and_published_schemas() -> None:
    done = run("check", "--json")
    rows = json.loads(done.stdout)
    assert done.exit_code == 0
    assert [row["record"] for row in rows] == [contract.name for contract in CONTRACTS]
    assert all(row["faults"] == [] and row["versions"] >= 1 and len(row["fingerprint"]) == 64 for row in rows)


def test_register_then_workers_find_their_ids(local: LocalRegistry, config: Config) -> None:
    registered = register_all(config)
    assert {row.subject for row in registered} == {f"{contract.topic}-value" for contract in CONTRACTS}
    assert register_all(config) == registered  # again: the same ids, nothing new
    writes = [contract.topic for contract in CONTRACTS]
    assert open_codecs(config, writes).events.encode(EVENT)[0] == 0


def test_register_prints_what_a_start_without_registry_needs(local: LocalRegistry) -> None:
    done = run("register", KEENSTREAM_REGISTRY_URL=local.url)
    assert done.exit_code == 0, done.output
    setting = next(line for line in done.output.splitlines() if line.startswith("KEENSTREAM_REGISTRY_IDS="))
    ids = tuple(setting.partition("=")[2].split(","))
    pinned = open_codecs(Config(registry=Registry(ids=ids, format="avro")), (Topic.USER_EVENTS,))
    assert pinned.events.decode(pinned.events.encode(EVENT)) == EVENT


def test_check_asks_the_registry_whether_it_would_take_the_newest(local: LocalRegistry, config: Config) -> None:
    assert not any(row.faults for row in check_records(config, ask_registry=True))
    assert local.subjects == {}  # asking registers nothing
    other = published("Event")[-1].compact.replace('"name":"text"', '"name":"words"')
    local.add("user-events-value", other)
    (row,) = [row for row in check_records(config, ask_registry=True) if row.faults]
    assert row.record == "Event" and any("$.words" in fault or "$.text" in fault for fault in row.faults)
    done = run("check", "--registry", KEENSTREAM_REGISTRY_URL=local.url)
    assert isinstance(done.exception, KeenstreamError)


def test_register_stops_at_what_the_registry_refuses(local: LocalRegistry, config: Config) -> None:
    local.add("user-events-value", published("Event")[-1].compact.replace('"name":"text"', '"name":"words"'))
    with pytest.raises(KeenstreamError, match="incompatible"):
        register_all(config)


def test_a_registry_that_is_away_is_named(local: LocalRegistry, config: Config) -> None:
    local.fault = 500
    with pytest.raises(Unavailable, match="answers 500"):
        register_all(config)
    with pytest.raises(UsageError, match="KEENSTREAM_REGISTRY_URL"):
        register_all(Config())


def test_publish_writes_nothing_when_nothing_has_changed(tmp_path: Path) -> None:
    place = tmp_path / "schemas"
    for name in ("avro", "published"):
        shutil.copytree(PACKAGE / name, place / name)
    assert publish_into(place) == []
    shutil.rmtree(place / "avro/Event")
    (place / "published/asyncapi.json").write_text("{}")
    assert {path.name for path in publish_into(place)} == {"1.avsc", "asyncapi.json"}
    assert (place / "avro/Event/1.avsc").read_text("utf-8") == published("Event")[-1].text


@pytest.mark.parametrize("option", ["--json-schema", "--asyncapi"])
def test_export_prints_or_writes(tmp_path: Path, option: str) -> None:
    printed = run("export", option, "-")
    path = tmp_path / "document.json"
    assert run("export", option, str(path)).exit_code == 0
    assert json.loads(printed.stdout) == json.loads(path.read_text())
    wrong = run("export", option, str(tmp_path / "no" / "such" / "folder"))
    assert isinstance(wrong.exception, UsageError)


def test_export_of_nothing_says_what_there_is() -> None:
    assert "--asyncapi" in str(run("export").exception)


def test_secrets_are_not_in_messages(local: LocalRegistry) -> None:
    local.credentials = ("worker", "hush")
    done = run("register", KEENSTREAM_REGISTRY_URL=local.url, KEENSTREAM_REGISTRY_PASSWORD="wrong-one")
    assert isinstance(done.exception, UsageError)
    assert "wrong-one" not in done.output + str(done.exception)
    settings = msgspec.structs.replace(Config().registry, url=local.url)
    assert "hush" not in repr(settings)
