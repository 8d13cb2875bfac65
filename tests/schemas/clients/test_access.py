"""Settings of TLS, tokens and headers reach the clients of Triton and Milvus."""

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # no stubs in the lock
import pytest
import trustme

from schemas.clients.access import milvus_options, triton_headers, triton_options
from schemas.clients.milvus import MilvusStore
from schemas.clients.triton import TritonEmbedder
from schemas.config import Milvus, Triton
from schemas.errors import KeenstreamError, UsageError
from schemas.secret import Secret


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


class Seen(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped here
    """A server that notes what it is asked, and by whom, and refuses."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    def service(self, details: Any) -> Any:
        self.calls.append((details.method, {key: value for key, value in details.invocation_metadata}))


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[tuple[Seen, int]]:
    """A gRPC server with a certificate for localhost; its port."""
    certificate = authority.issue_cert("localhost")
    pairs = [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    seen, running = Seen(), grpc.server(ThreadPoolExecutor(2))
    running.add_generic_rpc_handlers((seen,))
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pairs))
    running.start()
    yield seen, port
    running.stop(None).wait()


async def ask_triton(settings: Triton) -> None:
    embedder = TritonEmbedder(settings, deadline_seconds=2.0)
    try:
        with pytest.raises(KeenstreamError):
            await embedder.embed(["rain"])
    finally:
        await embedder.close()


async def test_triton_is_asked_by_tls_with_the_header(server: tuple[Seen, int], ca_file: str) -> None:
    seen, port = server
    header = Secret("Bearer t0ken")
    await ask_triton(Triton(grpc_address=f"localhost:{port}", ssl=True, ssl_ca_file=ca_file, authorization=header))
    assert seen.calls[0][0].endswith("ModelInfer")
    assert seen.calls[0][1]["authorization"] == "Bearer t0ken"


async def test_a_server_of_another_authority_gets_nothing(server: tuple[Seen, int], tmp_path: Path) -> None:
    seen, port = server
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    await ask_triton(Triton(grpc_address=f"localhost:{port}", ssl=True, ssl_ca_file=str(other)))
    assert seen.calls == []


async def test_milvus_is_asked_by_tls_with_the_token(server: tuple[Seen, int], ca_file: str) -> None:
    seen, port = server
    settings = Milvus(
        uri=f"https://localhost:{port}", token=Secret("ann:s3cret"), ssl_ca_file=ca_file, timeout_seconds=2.0
    )
    store = MilvusStore(settings)
    try:
        with pytest.raises(KeenstreamError):
            await store.check()
    finally:
        await asyncio.wait_for(store.close(), 10)
    assert any(method.startswith("/milvus.proto") for method, _ in seen.calls)
    wanted = base64.b64encode(b"ann:s3cret").decode()
    assert all(metadata["authorization"] == wanted for _, metadata in seen.calls)


def test_plain_settings_ask_for_nothing() -> None:
    assert triton_options("127.0.0.1:8001") == {"url": "127.0.0.1:8001"} == triton_options(Triton())
    assert triton_headers(Triton()) is None
    assert milvus_options(Milvus()) == {"uri": "http://127.0.0.1:19530"}


def test_a_client_certificate_is_passed_on(ca_file: str) -> None:
    files = {"ssl_ca_file": ca_file, "ssl_certificate_file": ca_file, "ssl_key_file": ca_file}
    assert triton_options(Triton(ssl=True, **files)) == {  # type: ignore[arg-type]  # mypy takes all fields for one type
        "url": "127.0.0.1:8001", "ssl": True,
        "root_certificates": ca_file, "certificate_chain": ca_file, "private_key": ca_file,
    }  # fmt: skip
    found = milvus_options(Milvus(uri="https://m:1", ssl_server_name="milvus", **files))  # type: ignore[arg-type]
    assert found == {
        "uri": "https://m:1", "secure": True, "server_name": "milvus",
        "ca_pem_path": ca_file, "client_pem_path": ca_file, "client_key_path": ca_file,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Triton(ssl_ca_file="ca.pem"), "triton.ssl is not"),
        (Triton(ssl=True, ssl_ca_file="nowhere.pem"), "triton.ssl_ca_file: cannot read nowhere.pem"),
        (Triton(ssl=True, ssl_ca_file=__file__), "not a PEM file"),
        (Triton(ssl=True, ssl_key_file="k.pem"), "together"),
        (Milvus(ssl_server_name="milvus"), "https://"),
        (Milvus(uri="https://m:1", ssl_ca_file="nowhere.pem"), "milvus.ssl_ca_file: cannot read nowhere.pem"),
        (Milvus(token=Secret("a"), token_file="b"), "both set"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: Triton | Milvus, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        triton_options(settings) if isinstance(settings, Triton) else milvus_options(settings)
