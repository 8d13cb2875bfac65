"""Secrets: values that never show in a log, and files that only their owner may read."""

import stat
from pathlib import Path
from typing import Any

from schemas.errors import UsageError


class Secret:
    """A text that hides itself: `repr` and `str` do not show it, `reveal` gives it. Falsy when empty."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


def secret_of(given: Secret, file: str, setting: str) -> str:
    """The secret itself, or the text of its file; empty when neither is set. Raises UsageError when both are.

    `setting` is the secret's name, such as `kafka.sasl_password`. The file is read anew each time, so that a client
    that is made anew sees a changed secret.
    """
    if given and file:
        raise UsageError(f"{setting} and {setting}_file are both set: keep one of them")
    return read_private_file(file, f"{setting}_file").strip() if file else given.reveal()


def read_private_file(path: str, setting: str) -> str:
    """The text of a file that nobody but owner and group may read or write; raises UsageError otherwise."""
    file = Path(path)
    try:
        if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise UsageError(f"{setting}: everybody on this machine may read or write {path}: run `chmod o= {path}`")
        return file.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{setting}: cannot read {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{setting}: {path} is not text in UTF-8") from error


def decode_secret(kind: type, value: Any) -> Secret:
    """msgspec's `dec_hook` for settings."""
    if kind is not Secret:
        raise NotImplementedError(f"a setting of type {kind}")
    if not isinstance(value, str):
        raise ValueError("a secret is a text")
    return Secret(value)


def reveal_secret(value: Any) -> str:
    """msgspec's `enc_hook`, for the environment of a child process only."""
    if not isinstance(value, Secret):
        raise NotImplementedError(f"a setting of type {type(value)}")
    return value.reveal()
