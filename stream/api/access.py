"""Who may ask: API keys with names and scopes, of which only hashes are kept.

A key is 32 random bytes, so one round of SHA-256 is right: a slow hash slows the guessing of what people make up, and
nobody guesses 256 random bits. A line of the keys file is `NAME SCOPE+SCOPE sha256:HEX`; empty lines and `#` comments
are passed over. A key is revoked by removing its line; a running server sees the change within a second.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Iterable
from logging import getLogger
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader

from schemas.config import Api
from schemas.errors import UsageError
from schemas.secret import read_private_file

_log = getLogger(__name__)

AccessScope = Literal["read", "write", "erase"]
SCOPES: Final[tuple[AccessScope, ...]] = get_args(AccessScope)
HEADER: Final = "x-api-key"
LOOK_SECONDS = 1.0  # how often the keys file is looked at for changes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

key_header = APIKeyHeader(
    name=HEADER,
    scheme_name="ApiKey",
    auto_error=False,
    description="A key with the scope of the route: `read`, `write` or `erase`. Made by `keenstream api-key create`.",
)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What the server keeps of a key."""

    name: str
    scopes: frozenset[AccessScope]
    digest: str


def new_key() -> str:
    """256 random bits, as text for a header."""
    return secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def key_line(name: str, scopes: Iterable[str], key: str) -> str:
    """The line to store. Raises UsageError when the name or a scope is not one."""
    return _encode(_checked(name, scopes, digest_of(key)))


def parse_keys(lines: Iterable[str], source: str) -> tuple[ApiKey, ...]:
    """The keys of a file's lines. Raises UsageError that names the line by its number; a line is never repeated."""
    found: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != 3:
            raise UsageError(f"{source}, line {number}: write NAME SCOPE+SCOPE sha256:HEX, see `keenstream api-key`")
        try:
            key = _checked(fields[0], fields[1].split("+"), fields[2])
        except UsageError as error:
            raise UsageError(f"{source}, line {number}: {error}") from error
        if key.name in found:
            raise UsageError(f"{source}, line {number}: there are two keys named {key.name}")
        found[key.name] = key
    return tuple(found.values())


def find_key(keys: Iterable[ApiKey], given: str) -> ApiKey | None:
    """The key that was given; each is compared in constant time, and all of them are."""
    digest, found = digest_of(given), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


class KeyRing:
    """The keys of the settings; a changed file is read again, and one that a change broke leaves the last keys."""

    def __init__(self, settings: Api, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fixed = parse_keys(settings.keys, "KEENSTREAM_API_KEYS")
        self._path, self._monotonic = settings.keys_file, monotonic
        self._seen, self._looked_at = self._mark(), monotonic()
        self._keys = (*self._fixed, *self._read())

    def find(self, given: str) -> ApiKey | None:
        self._look()
        return find_key(self._keys, given)

    def _look(self) -> None:
        now = self._monotonic()
        if not self._path or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at, mark = now, self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._keys = (*self._fixed, *self._read())
        except UsageError as error:
            _log.error("the API keys stay as they were: %s", error)
        else:
            _log.info("the API keys were read anew: %s", ", ".join(sorted(key.name for key in self._keys)) or "none")

    def _read(self) -> tuple[ApiKey, ...]:
        if not self._path:
            return ()
        return parse_keys(read_private_file(self._path, "api.keys_file").splitlines(), self._path)

    def _mark(self) -> tuple[int, ...]:
        try:
            found = Path(self._path).stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def is_locked(settings: Api) -> bool:
    """Is a key wanted? Also when the file holds none: then nobody gets in."""
    return bool(settings.keys_file or settings.keys)


def check_exposure(settings: Api) -> None:
    """Raises UsageError when others could reach an API that asks for no key, or when the keys are not as they must be.

    Before anything is opened: nothing has to be closed then.
    """
    KeyRing(settings)
    if not is_locked(settings) and not is_local(settings.host):
        raise UsageError(
            f"api.host is {settings.host}, which others can reach, and there are no API keys: anyone could read "
            "profiles. Make one with `keenstream api-key create` and set KEENSTREAM_API_KEYS_FILE, or listen on "
            "127.0.0.1"
        )


def is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs(scope: AccessScope) -> Any:
    """The dependency of routes that want a key with `scope`: 401 without a good key, 403 without the scope."""

    async def check(request: Request, _: Annotated[str | None, Depends(key_header)]) -> None:
        key: ApiKey | None = getattr(request.state, "key", None)
        if key is None:
            told = "the key is not known here" if HEADER in request.headers else "a key is missing"
            raise HTTPException(
                401,
                f"{told}: send one in the header {HEADER}; `keenstream api-key create` makes one",
                {"WWW-Authenticate": f'ApiKey header="{HEADER}"'},
            )
        if scope not in key.scopes:
            raise HTTPException(
                403, f"the key {key.name} has not the scope {scope}: it may {', '.join(sorted(key.scopes))}"
            )

    return Security(check, scopes=[scope])


def _checked(name: str, scopes: Iterable[str], digest: str) -> ApiKey:
    given = frozenset(scopes)
    if not _NAME.fullmatch(name):
        raise UsageError("a key's name is 1 to 64 letters, digits, dots, dashes and underscores")
    if not given or given - set(SCOPES):
        raise UsageError(f"the scopes are {', '.join(SCOPES)}; at least one is needed, and no other can be given")
    if not _DIGEST.fullmatch(digest):
        raise UsageError("the third field is the key's hash, sha256: and 64 hexadecimal digits; never the key itself")
    return ApiKey(name=name, scopes=frozenset(scope for scope in SCOPES if scope in given), digest=digest)


def _encode(key: ApiKey) -> str:
    return f"{key.name} {'+'.join(scope for scope in SCOPES if scope in key.scopes)} {key.digest}"
