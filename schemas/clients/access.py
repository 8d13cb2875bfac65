"""From the settings of Triton and Milvus to the options of their clients: TLS, tokens, headers."""

from pathlib import Path
from typing import Any

from schemas.config import Milvus, Triton
from schemas.errors import UsageError
from schemas.secret import secret_of

Server = Triton | str  # the settings, or only the gRPC address of a server that asks for nothing


def triton_settings(server: Server) -> Triton:
    return Triton(grpc_address=server) if isinstance(server, str) else server


def triton_options(server: Server) -> dict[str, Any]:
    """Of tritonclient's gRPC InferenceServerClient. Raises UsageError when a file is not as it must be."""
    triton = triton_settings(server)
    given = (triton.ssl_ca_file, triton.ssl_certificate_file, triton.ssl_key_file)
    if not triton.ssl:
        if any(given):
            raise UsageError("triton.ssl_*_file is set and triton.ssl is not: set it to true")
        return {"url": triton.grpc_address}
    _check_files("triton", *given)
    names = ("root_certificates", "certificate_chain", "private_key")
    files = {name: path for name, path in zip(names, given, strict=True) if path}
    return {"url": triton.grpc_address, "ssl": True, **files}


def triton_headers(server: Server) -> dict[str, str] | None:
    """Of each request. Raises UsageError when the file of the secret is not as it must be."""
    triton = triton_settings(server)
    value = secret_of(triton.authorization, triton.authorization_file, "triton.authorization")
    return {"authorization": value} if value else None


def milvus_options(milvus: Milvus) -> dict[str, Any]:
    """Of pymilvus's clients. Raises UsageError when a file is not as it must be."""
    given = (milvus.ssl_ca_file, milvus.ssl_certificate_file, milvus.ssl_key_file)
    token = secret_of(milvus.token, milvus.token_file, "milvus.token")
    options: dict[str, Any] = {"uri": milvus.uri, **({"token": token} if token else {})}
    if not milvus.uri.startswith("https://"):
        if any(given) or milvus.ssl_server_name:
            raise UsageError("milvus.ssl_* is set and milvus.uri does not begin with https://: change one of them")
        return options
    _check_files("milvus", *given)
    ca, certificate, key = given
    if certificate:  # pymilvus has two names for the authorities, by whether the client shows a certificate
        options |= {"ca_pem_path": ca, "client_pem_path": certificate, "client_key_path": key}
    elif ca:
        options["server_pem_path"] = ca
    if milvus.ssl_server_name:
        options["server_name"] = milvus.ssl_server_name
    return {**options, "secure": True}


def _check_files(group: str, ca: str, certificate: str, key: str) -> None:
    """A client names a missing file late, or not at all."""
    if bool(certificate) != bool(key):
        raise UsageError(f"set {group}.ssl_certificate_file and {group}.ssl_key_file together")
    if certificate and not ca and group == "milvus":
        raise UsageError("milvus.ssl_certificate_file wants milvus.ssl_ca_file too")
    for name, path in (("ssl_ca_file", ca), ("ssl_certificate_file", certificate), ("ssl_key_file", key)):
        try:
            if path and b"-----BEGIN" not in Path(path).read_bytes():
                raise UsageError(f"{group}.{name}: {path} is not a PEM file")
        except OSError as error:
            raise UsageError(f"{group}.{name}: cannot read {path} ({error.strerror})") from error
