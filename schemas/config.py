"""Settings: frozen groups, read once from one TOML file and the environment, then passed in.

Precedence: defaults < TOML < environment. The environment variable of `[kafka] bootstrap` is
`KEENSTREAM_KAFKA_BOOTSTRAP`; lists are comma-separated there, and `KEENSTREAM_EXPERIMENTS` is a JSON array of what
`[[experiments]]` tables are in the file. A wrong type is a `UsageError`, and so is an unknown name in the file. A
secret comes from the environment or from a file of its own (`..._file`): settings files get copied.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.errors import UsageError
from schemas.experiment import Experiment, check_experiments
from schemas.secret import Secret, decode_secret, reveal_secret

ENVIRONMENT_PREFIX = "KEENSTREAM_"


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    bootstrap: str = "127.0.0.1:9092"  # several: host:port,host:port
    partitions: int = 4  # of every keyed topic and table: they must agree
    replication_factor: int = 1
    session_timeout_seconds: float = 45.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password: Secret = Secret()
    sasl_password_file: str = ""
    ssl_ca_file: str = ""  # PEM; empty = the authorities that this machine trusts
    ssl_certificate_file: str = ""  # PEM, of this client, where the broker wants one
    ssl_key_file: str = ""


class Triton(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    grpc_address: str = "127.0.0.1:8001"
    student_deadline_seconds: float = 60.0  # of one list, the wait for its batch included
    embedder_deadline_seconds: float = 10.0
    cleaner_deadline_seconds: float = 1.0  # of 128 texts at most; then the rules alone have cleaned them
    ssl: bool = False
    ssl_ca_file: str = ""  # PEM; empty = the authorities that gRPC trusts
    ssl_certificate_file: str = ""
    ssl_key_file: str = ""
    authorization: Secret = Secret()  # the header of this name, for a gateway before Triton: "Bearer ..."
    authorization_file: str = ""


class Milvus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    uri: str = "http://127.0.0.1:19530"  # https:// for TLS
    timeout_seconds: float = 10.0
    token: Secret = Secret()  # user:password, or an API key
    token_file: str = ""
    ssl_ca_file: str = ""  # PEM; empty = the authorities that gRPC trusts
    ssl_certificate_file: str = ""
    ssl_key_file: str = ""
    ssl_server_name: str = ""  # in the server's certificate, where it is not the host of the uri


class Profiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    signals_per_domain: int = 50  # K of the profile merge
    languages: tuple[str, ...] = ("en",)
    future_skew_seconds: float = 300.0  # an event from further ahead is a dead letter
    flush_records: int = 20_000
    flush_seconds: float = 0.5


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a reader's list is written anew: weights of new signals since the last request add up to the threshold."""

    page_weight: float = 1.0
    search_weight: float = 2.0
    click_weight: float = 2.0
    threshold: float = 4.0
    cold_signals: int = 3  # a reader with at most so many signals is refreshed by each of them at once
    interval_seconds: float = 30.0  # at most one list per reader in this time, cold or not
    pending_seconds: float = 600.0  # new signals below the threshold wait no longer than this


class Interests(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    batch_records: int = 32  # lists asked for at once; more would only wait in Triton's queue
    batch_seconds: float = 0.05
    max_queries: int = 5
    signal_queries: int = 8  # the latest cleaned signals kept as queries beside the student's list
    list_ttl_seconds: float = 7 * 86_400.0
    breaker_failures: int = 3  # consecutive failed calls that open the circuit
    breaker_reset_seconds: float = 5.0
    cleaner: bool = True  # ask the served cleaner about pages and searches; without one the rules alone decide
    cleaner_signals: int = 16  # the latest pages, and as many searches, that it is asked about
    cleaner_cache_texts: int = 100_000  # verdicts kept in each worker, about 200 bytes each
    cleaner_retry_seconds: float = 30.0  # until it is asked again after `breaker_failures` failures


class Articles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    batch_records: int = 256
    batch_seconds: float = 0.2
    ttl_seconds: float = 14 * 86_400.0  # for articles without their own expires_at
    same_story_similarity: float = 0.95  # cosine from which two articles tell the same story
    sweep_seconds: float = 300.0


class Matches(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The reverse path: which readers are told of a new article."""

    min_similarity: float = 0.5  # cosine of the article and a stored query
    max_readers: int = 200  # of one article, the most similar first; 0 = nobody is told
    per_reader_hour: int = 10  # articles that one reader is told of in any hour
    article_age_seconds: float = 6 * 3_600.0  # an article published longer ago is not announced
    max_streams: int = 500  # open GET /v1/users/{id}/fresh of one API process
    heartbeat_seconds: float = 15.0  # of a stream on which nothing happens
    held_matches: int = 50_000  # latest ones kept in an API process, for streams that come back
    held_per_reader: int = 20
    held_seconds: float = 600.0  # so far back an API process reads at its start


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8080
    keys_file: str = ""  # a line for each key, as `keenstream api-key create` prints it; wanted beyond 127.0.0.1
    keys: tuple[str, ...] = ()  # such lines in the environment instead
    requests_per_second: float = 1_000.0  # of one key, or of one address without a key; 0 = no limit
    request_burst: int = 2_000  # requests at once before the rate counts
    request_seconds: float = 15.0  # until the answer begins; a stream may then go on
    header_seconds: float = 10.0  # for the headers of a request
    max_connections: int = 2_000  # at once; further requests are answered with 503
    access_log: bool = False  # a line for each request: method, route, status, time, name of the key
    articles_per_query: int = 30
    student_weight: float = 1.0  # in reciprocal rank fusion; chosen on validation readers by `keenstream evaluate`
    signal_weight: float = 1.0
    query_quota: float = 0.5  # at most this share of a response comes from one query
    vector_cache_readers: int = 20_000


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A partition's records become files when one of these is reached."""

    folder: str = "archive"  # not absolute: below the state folder (KEENSTREAM_HOME)
    roll_records: int = 200_000
    roll_megabytes: float = 64.0  # of records as the broker has them
    roll_seconds: float = 300.0  # since the first of them was read


class Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Confluent-compatible schema registry. With one, JSON and Avro are both read on every topic."""

    url: str = ""  # empty = no registry, JSON only
    format: Literal["json", "avro"] = "json"  # of what is written
    subject_strategy: Literal["topic", "record", "topic-record"] = "topic"
    timeout_seconds: float = 2.0
    user: str = ""
    password: Secret = Secret()
    password_file: str = ""
    ssl_ca_file: str = ""  # PEM; empty = the authorities that httpx trusts
    ids: tuple[str, ...] = ()  # as `keenstream schemas register` prints them: workers start without asking


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kafka: Kafka = Kafka()
    triton: Triton = Triton()
    milvus: Milvus = Milvus()
    profiles: Profiles = Profiles()
    refresh: Refresh = Refresh()
    interests: Interests = Interests()
    articles: Articles = Articles()
    matches: Matches = Matches()
    api: Api = Api()
    registry: Registry = Registry()
    archive: Archive = Archive()
    experiments: tuple[Experiment, ...] = ()  # one at a time


EXPERIMENTS = "experiments"  # the only setting that is no group
EXPERIMENTS_VARIABLE = f"{ENVIRONMENT_PREFIX}{EXPERIMENTS}".upper()
_GROUPS = tuple(field for field in msgspec.structs.fields(Config) if field.name != EXPERIMENTS)


def load_config(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Settings from `path` (TOML, optional) overridden by `environment`; raises UsageError naming the wrong setting."""
    raw = _read_toml(path) if path else {}
    _refuse_secrets(raw, path)
    for group, name, value in _from_environment(environment):
        raw.setdefault(group, {})[name] = value
    if given := environment.get(EXPERIMENTS_VARIABLE):
        raw[EXPERIMENTS] = _read_experiments(given)
    try:
        config = msgspec.convert(raw, Config, strict=False, dec_hook=decode_secret)
        check_experiments(config.experiments)
        return config
    except msgspec.ValidationError as error:
        source = f"{path} or the environment" if path else "the environment"
        raise UsageError(f"setting in {source}: {error}") from error


def environment_of(config: Config) -> dict[str, str]:
    """The environment variables that reproduce `config`, secrets included, for a child process."""
    groups = msgspec.to_builtins(config, enc_hook=reveal_secret)
    experiments = msgspec.json.encode(groups.pop(EXPERIMENTS)).decode()
    return {EXPERIMENTS_VARIABLE: experiments} | {
        f"{ENVIRONMENT_PREFIX}{group}_{name}".upper(): ",".join(value)
        if isinstance(value, list | tuple)
        else str(value)
        for group, fields in groups.items()
        for name, value in fields.items()
    }


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _read_experiments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{EXPERIMENTS_VARIABLE} is not a JSON array of experiments: {error}") from error


def _refuse_secrets(raw: Mapping[str, Any], path: Path | None) -> None:
    for group in _GROUPS:
        for field in msgspec.structs.fields(group.type):
            given = raw.get(group.name)
            if field.type is Secret and isinstance(given, Mapping) and field.name in given:
                variable = f"{ENVIRONMENT_PREFIX}{group.name}_{field.name}".upper()
                name = f"{group.name}.{field.name}"
                raise UsageError(f"{path} holds {name}: put it into a file of its own ({name}_file) or into {variable}")


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []
    for group in _GROUPS:
        for field in msgspec.structs.fields(group.type):
            text = environment.get(f"{ENVIRONMENT_PREFIX}{group.name}_{field.name}".upper())
            if text is not None:
                found.append((group.name, field.name, _split(text) if field.type == tuple[str, ...] else text))
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
