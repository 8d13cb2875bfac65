import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trustme

from schemas.avro.published import published
from schemas.config import Registry
from schemas.contracts import CONTRACTS
from schemas.errors import InvalidRecord, KeenstreamError, Unavailable, UsageError
from schemas.registry import ATTEMPTS, SchemaRegistry, subject_of
from schemas.secret import Secret
from tests.schemas.local_registry import LocalRegistry, local_registry

SUBJECT = "user-events-value"
NEWEST = published("Event")[-1].compact


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRegistry]:
    with local_registry() as started:
        yield started


@pytest.fixture
def local(server: LocalRegistry) -> LocalRegistry:
    server.reset()
    return server


def client(local: LocalRegistry, user: str = "", password: str = "") -> SchemaRegistry:
    return SchemaRegistry(Registry(url=local.url, timeout_seconds=2, user=user, password=Secret(password)))


def test_a_schema_is_found_by_its_id_and_its_id_by_the_schema(local: LocalRegistry) -> None:
    number = client(local).register(SUBJECT, NEWEST)
    assert client(local).schema(number) == NEWEST
    assert client(local).find(SUBJECT, NEWEST) == number


def test_asking_registers_nothing(local: LocalRegistry) -> None:
    assert client(local).find(SUBJECT, NEWEST) is None
    assert client(local).conflicts(SUBJECT, NEWEST) == []
    assert local.texts == {} and local.subjects == {}


def test_a_schema_that_is_not_there_is_the_records_fault(local: LocalRegistry) -> None:
    with pytest.raises(InvalidRecord, match="no schema 7"):
        client(local).schema(7)


@pytest.mark.parametrize("fault", [500, 502, 503, 504, 429, 418, "garbage"])
def test_a_registry_that_is_ill_is_asked_again_later(local: LocalRegistry, fault: int | str) -> None:
    number = local.add(SUBJECT, NEWEST)
    local.fault = fault
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        client(local).schema(number)


def test_a_short_illness_is_not_noticed(local: LocalRegistry) -> None:
    number = local.add(SUBJECT, NEWEST)
    local.fault, local.faults_left = 500, ATTEMPTS - 1
    assert client(local).schema(number) == NEWEST
    assert len(local.asked) == ATTEMPTS


def test_a_registry_that_never_answers_is_given_up(local: LocalRegistry) -> None:
    local.slow_seconds = 1.0
    with pytest.raises(Unavailable, match="ReadTimeout"):
        SchemaRegistry(Registry(url=local.url, timeout_seconds=0.05)).schema(1)


def test_nobody_at_the_address() -> None:
    with pytest.raises(Unavailable, match="ConnectError"):
        SchemaRegistry(Registry(url="http://127.0.0.1:9", timeout_seconds=1)).find(SUBJECT, NEWEST)


def test_credentials_are_sent_and_wrong_ones_named_but_not_shown(local: LocalRegistry) -> None:
    local.credentials = ("worker", "hush")
    number = local.add(SUBJECT, NEWEST)
    assert client(local, "worker", "hush").schema(number) == NEWEST
    with pytest.raises(UsageError, match="KEENSTREAM_REGISTRY_PASSWORD") as caught:
        client(local, "worker", "wrong-one").schema(number)
    assert "wrong-one" not in str(caught.value)


def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file, password = tmp_path / "ca.pem", tmp_path / "password"
    authority.cert_pem.write_to_path(str(file))
    password.write_text("hush\n")
    password.chmod(0o600)
    with local_registry(tls=context) as local:
        local.credentials = ("worker", "hush")
        number = local.add(SUBJECT, NEWEST)
        settings = Registry(url=local.url, user="worker", password_file=str(password), timeout_seconds=5)
        trusting = msgspec.structs.replace(settings, ssl_ca_file=str(file))
        assert SchemaRegistry(trusting).schema(number) == NEWEST
        with pytest.raises(Unavailable, match="ConnectError"):
            SchemaRegistry(settings).schema(number)
    with pytest.raises(UsageError, match="ssl_ca_file"):
        SchemaRegistry(msgspec.structs.replace(settings, ssl_ca_file=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("url", "why"),
    [("registry:8081", "http://"), ("ftp://a", "http://"), ("http://", "http://"), ("http://u:p@a:1", "credentials")],
)
def test_a_wrong_address_is_a_usage_error_that_hides_it(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        SchemaRegistry(Registry(url=url))
    assert "u:p" not in str(caught.value)


def test_other_kinds_of_schemas_are_told_apart(local: LocalRegistry) -> None:
    number = local.add(SUBJECT, "message Event {}")
    local.types[number] = "PROTOBUF"
    with pytest.raises(InvalidRecord, match="PROTOBUF"):
        client(local).schema(number)
    local.types.clear()
    local.references[number] = [{"name": "other"}]
    with pytest.raises(InvalidRecord, match="inline"):
        client(local).schema(number)


def test_an_incompatible_schema_is_refused_with_the_registrys_reason(local: LocalRegistry) -> None:
    local.add(SUBJECT, NEWEST)
    other = NEWEST.replace('"name":"text"', '"name":"words"')
    assert any("text" in reason for reason in client(local).conflicts(SUBJECT, other))
    with pytest.raises(KeenstreamError, match=r"incompatible.*words"):
        client(local).register(SUBJECT, other)


def test_the_three_strategies() -> None:
    event = CONTRACTS[0]
    assert subject_of(event, "topic") == "user-events-value"
    assert subject_of(event, "record") == "keenstream.Event"
    assert subject_of(event, "topic-record") == "user-events-keenstream.Event"
