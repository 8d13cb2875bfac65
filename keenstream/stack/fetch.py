"""Fetch and unpack what the parts run on, once: `python -m keenstream.stack.fetch`."""

from keenstream.stack.kafka import ensure_jars
from keenstream.stack.milvus import ensure_binaries
from keenstream.stack.triton import ensure_backends


def main() -> None:
    ensure_jars()
    ensure_binaries()
    ensure_backends()


if __name__ == "__main__":
    main()
