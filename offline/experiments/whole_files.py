"""Result files that are there whole or not at all."""

from pathlib import Path

import msgspec


def write_whole(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_bytes(content)
    scratch.replace(path)


def write_json(path: Path, report: msgspec.Struct) -> None:
    write_whole(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
