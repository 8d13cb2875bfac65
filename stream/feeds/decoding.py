"""The bytes of an HTTP answer, unpacked within a limit: a small gzip or brotli body can stand for gigabytes."""

import zlib
from typing import Protocol

import brotli  # type: ignore[import-untyped]

from schemas.errors import Unavailable, UsageError

ACCEPTED = "gzip, deflate, br"
_STEP_BYTES = 1024 * 1024


class Unpacker(Protocol):
    """Gives at most `most` further bytes of what was packed; `eof` when all were given."""

    def next(self, data: bytes, most: int) -> bytes: ...

    @property
    def eof(self) -> bool: ...


class BodyReader:
    """Collects a body; raises UsageError when it becomes larger than `most_bytes`, before it is in memory."""

    def __init__(self, address: str, encoding: str, most_bytes: int) -> None:
        self._address, self._most = address, most_bytes
        self._unpacker = _unpacker(encoding.strip().lower(), address)
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Raises Unavailable when the packed bytes are broken: an answer that was cut on the way."""
        try:
            while plain := self._unpacker.next(chunk, _STEP_BYTES):
                self._parts.append(plain)
                self._size += len(plain)
                if self._size > self._most:
                    raise UsageError(f"{self._address} is larger than {self._most / 2**20:g} MiB: --max-megabytes")
                chunk = b""
        except (zlib.error, brotli.error) as error:
            raise Unavailable(f"{self._address} sends a packed body that is broken") from error

    def whole(self) -> bytes:
        """Raises Unavailable when the packed bytes broke off."""
        if self._parts and not self._unpacker.eof:
            raise Unavailable(f"{self._address} sends a packed body that breaks off")
        return b"".join(self._parts)


def _unpacker(encoding: str, address: str) -> Unpacker:
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Zlib()
    if encoding == "br":
        return _Brotli()
    if encoding in ("", "identity"):
        return _Plain()
    raise UsageError(f"{address} answers in the encoding {encoding}, which was not asked for")


class _Plain(Unpacker):
    eof = True

    def next(self, data: bytes, most: int) -> bytes:
        return data


class _Zlib(Unpacker):
    def __init__(self) -> None:
        self._packed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by the header

    def next(self, data: bytes, most: int) -> bytes:
        return self._packed.decompress(self._packed.unconsumed_tail + data, most)

    @property
    def eof(self) -> bool:
        return self._packed.eof


class _Brotli(Unpacker):
    def __init__(self) -> None:
        self._packed = brotli.Decompressor()

    def next(self, data: bytes, most: int) -> bytes:
        return bytes(self._packed.process(data, output_buffer_limit=most))

    @property
    def eof(self) -> bool:
        return bool(self._packed.is_finished())
