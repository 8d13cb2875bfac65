"""A client of a Confluent-compatible schema registry (its REST API, version 1), and the subjects' names.

Workers only ask; `register` is called by `keenstream schemas register`, when a release is deployed.
"""

from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from schemas.avro.generator import NAMESPACE
from schemas.config import Registry
from schemas.contracts import Contract
from schemas.errors import InvalidRecord, KeenstreamError, Unavailable, UsageError
from schemas.secret import secret_of

ATTEMPTS = 3
_JSON = "application/vnd.schemaregistry.v1+json"
_MOST_BYTES = 4 * 1024 * 1024  # of one answer
_BUSY = (429, 500, 502, 503, 504)

Answer = TypeVar("Answer")


class _StoredSchema(msgspec.Struct):
    schema: str
    schemaType: str = "AVRO"  # the registry's name for it
    references: list[Any] = []


class _Identified(msgspec.Struct):
    id: int


class _Compatible(msgspec.Struct):
    is_compatible: bool
    messages: list[str] = []


class _Refusal(msgspec.Struct):
    message: str = ""


def subject_of(contract: Contract, strategy: str) -> str:
    """The subject of a topic's values by `registry.subject_strategy`, Confluent's three."""
    full_name = f"{NAMESPACE}.{contract.name}"
    return {
        "topic": f"{contract.topic}-value",
        "record": full_name,
        "topic-record": f"{contract.topic}-{full_name}",
    }[strategy]


class SchemaRegistry:
    """Calls block for at most `ATTEMPTS` times `registry.timeout_seconds` and the pauses between them.

    All raise Unavailable when the registry is away, busy or answers with something else than its API, and UsageError
    when it refuses the credentials.
    """

    def __init__(self, settings: Registry) -> None:
        _check_url(settings.url)
        password = secret_of(settings.password, settings.password_file, "registry.password")
        self.url = settings.url.rstrip("/")
        self._client = httpx.Client(
            timeout=settings.timeout_seconds,
            auth=(settings.user, password) if settings.user else None,
            headers={"accept": f"{_JSON}, application/json"},
            verify=_authorities(settings.ssl_ca_file),
        )

    def schema(self, schema_id: int) -> str:
        """The text of an Avro schema. Raises InvalidRecord when the registry has no Avro schema of this id."""
        response = self._call("GET", f"/schemas/ids/{schema_id}")
        if response.status_code == 404:
            raise InvalidRecord(f"the schema registry knows no schema {schema_id}")
        stored = self._read(response, _StoredSchema)
        if stored.schemaType != "AVRO":
            raise InvalidRecord(f"schema {schema_id} is of type {stored.schemaType}, which is not read here")
        if stored.references:
            raise InvalidRecord(f"schema {schema_id} refers to other subjects: register it with its types inline")
        return stored.schema

    def find(self, subject: str, text: str) -> int | None:
        """The id under which `text` is registered as a version of `subject`; None when it is not."""
        response = self._call("POST", f"/subjects/{quote(subject, safe='')}", text)
        return None if response.status_code == 404 else self._read(response, _Identified).id

    def conflicts(self, subject: str, text: str) -> list[str]:
        """Why `text` may not follow the newest version of `subject`; [] when it may, or there is none yet."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        response = self._call("POST", path, text)
        if response.status_code == 404:
            return []
        answer = self._read(response, _Compatible)
        return [] if answer.is_compatible else answer.messages or ["the registry says no, and not why"]

    def register(self, subject: str, text: str) -> int:
        """The id of `text`, now a version of `subject`. Raises KeenstreamError with the registry's reason."""
        return self._read(self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", text), _Identified).id

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, path: str, schema: str | None = None) -> httpx.Response:
        body = None if schema is None else msgspec.json.encode({"schema": schema})
        attempts = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        return attempts(self._call_once, method, path, body)

    def _call_once(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        try:
            response = self._client.request(method, self.url + path, content=body, headers={"content-type": _JSON})
        except httpx.HTTPError as error:
            told = f"the schema registry at {self.url} does not answer ({type(error).__name__})"
            raise Unavailable(f"{told}: start it, or set KEENSTREAM_REGISTRY_URL") from error
        if response.status_code in _BUSY:
            told = f"the schema registry at {self.url} answers {response.status_code}"
            raise Unavailable(f"{told}: see its log, then try again")
        if response.status_code in (401, 403):
            raise UsageError(
                f"the schema registry at {self.url} answers {response.status_code}: "
                "set KEENSTREAM_REGISTRY_USER and KEENSTREAM_REGISTRY_PASSWORD"
            )
        return response

    def _read(self, response: httpx.Response, kind: type[Answer]) -> Answer:
        if response.status_code in (409, 422):
            raise KeenstreamError(f"the schema registry refuses: {_refusal(response)}")
        try:
            if response.status_code != 200 or len(response.content) > _MOST_BYTES:
                raise ValueError(f"status {response.status_code}, {len(response.content)} bytes")
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, ValueError) as error:
            raise Unavailable(f"what answers at {self.url} is no schema registry: {error}") from error


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError("registry.url must be http://host:port or https://host:port")
    if parts.username or parts.password:
        raise UsageError("registry.url holds credentials: set registry.user and KEENSTREAM_REGISTRY_PASSWORD instead")


def _authorities(file: str) -> Any:
    import ssl

    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"registry.ssl_ca_file: cannot read certificates from {file}") from error


def _refusal(response: httpx.Response) -> str:
    try:
        return msgspec.json.decode(response.content, type=_Refusal).message or str(response.status_code)
    except msgspec.DecodeError:
        return str(response.status_code)
