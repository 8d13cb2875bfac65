"""`keenstream schemas check | publish | register | export`: the contracts as Avro, JSON Schema and AsyncAPI."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json
from schemas.errors import KeenstreamError, UsageError

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.registry import SchemaRegistry

app = typer.Typer(
    no_args_is_help=True, help="The records' schemas: published versions, the schema registry, and documents."
)


class CheckedRecord(msgspec.Struct, frozen=True):
    """What `check` found of one record type."""

    record: str
    subject: str
    versions: int
    fingerprint: str  # of the newest version
    faults: list[str]


class RegisteredSchema(msgspec.Struct, frozen=True):
    label: str
    subject: str
    id: int


@app.command("check")
def check(
    registry: Annotated[
        bool, typer.Option("--registry", help="Also ask the schema registry whether it would take each newest version.")
    ] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """Check that published schemas and structs agree, and that every version can read every other.

    Example: `keenstream schemas check --registry`
    """
    from keenstream.settings import resolve_config

    checked = check_records(resolve_config(), ask_registry=registry)
    if as_json:
        print_json(checked)
    else:
        table = Table("record", "subject", "versions", "newest (SHA-256)", "")
        for row in checked:
            table.add_row(
                row.record, row.subject, str(row.versions), row.fingerprint[:16], "\n".join(row.faults) or "good"
            )
        console.print(table)
    if any(row.faults for row in checked):
        raise KeenstreamError("some schemas are not as they must be; the reasons are above")


@app.command("publish")
def publish_schemas(
    replace: Annotated[
        bool, typer.Option("--replace", help="Rewrite the newest version: only for what was never released.")
    ] = False,
) -> None:
    """Write a new version of each schema whose struct has changed, and the documents made from them.

    Example: `keenstream schemas publish`
    """
    import schemas

    (folder,) = schemas.__path__
    for path in publish_into(Path(folder), replace=replace):
        console.print(str(path), soft_wrap=True)


@app.command("register")
def register(as_json: bool = JSON_OPTION) -> None:
    """Register every published version with the schema registry: part of a deployment, before its workers start.

    Example: `KEENSTREAM_REGISTRY_URL=http://registry:8081 keenstream schemas register`
    """
    from keenstream.settings import resolve_config

    registered = register_all(resolve_config())
    if as_json:
        print_json(registered)
        return
    table = Table("schema", "subject", "id")
    for row in registered:
        table.add_row(row.label, row.subject, str(row.id))
    console.print(table)
    console.print("Workers that must start while the registry is away need:", highlight=False)
    pinned = ",".join(f"{row.label}={row.id}" for row in registered)
    console.print(f"KEENSTREAM_REGISTRY_IDS={pinned}", soft_wrap=True, highlight=False)


@app.command("export")
def export(
    json_schema: Annotated[
        Path | None, typer.Option("--json-schema", help="Where to write the JSON Schema; `-` prints it.")
    ] = None,
    asyncapi: Annotated[
        Path | None, typer.Option("--asyncapi", help="Where to write the AsyncAPI document; `-` prints it.")
    ] = None,
    experiment_report: Annotated[
        Path | None, typer.Option("--experiment-report", help="Where to write the JSON Schema of report.json.")
    ] = None,
    experiment_offpolicy: Annotated[
        Path | None, typer.Option("--experiment-offpolicy", help="Where to write the JSON Schema of offpolicy.json.")
    ] = None,
) -> None:
    """Write the JSON Schema or the AsyncAPI document of the records and topics, or the schema of experiments' results.

    Example: `keenstream schemas export --asyncapi asyncapi.json`
    """
    from keenstream import contract_documents as documents

    wanted = (
        (json_schema, documents.json_schema),
        (asyncapi, documents.asyncapi),
        (experiment_report, documents.experiment_report),
        (experiment_offpolicy, documents.experiment_offpolicy),
    )
    if all(path is None for path, _ in wanted):
        raise UsageError(
            "say --json-schema, --asyncapi, --experiment-report or --experiment-offpolicy PATH; `-` prints"
        )
    for path, make in wanted:
        if path is not None:
            _write(path, documents.document_text(make()))


def check_records(config: "Config", *, ask_registry: bool) -> list[CheckedRecord]:
    """Raises Unavailable or UsageError when the registry is asked and cannot answer."""
    from schemas.avro.history import history_faults
    from schemas.avro.published import published
    from schemas.contracts import CONTRACTS
    from schemas.registry import subject_of

    registry = open_registry(config) if ask_registry else None
    checked: list[CheckedRecord] = []
    for contract in CONTRACTS:
        versions = published(contract.name)
        faults = history_faults(contract.record, versions)
        subject = subject_of(contract, config.registry.subject_strategy)
        if registry and versions:
            faults += [f"registry: {reason}" for reason in registry.conflicts(subject, versions[-1].compact)]
        fingerprint = versions[-1].fingerprint if versions else ""
        checked.append(CheckedRecord(contract.name, subject, len(versions), fingerprint, faults))
    return checked


def register_all(config: "Config") -> list[RegisteredSchema]:
    """Oldest versions first, as each is checked against the one before. Registering again changes nothing."""
    from schemas.avro.published import published
    from schemas.contracts import CONTRACTS
    from schemas.registry import subject_of

    registry = open_registry(config)
    registered: list[RegisteredSchema] = []
    for contract in CONTRACTS:
        subject = subject_of(contract, config.registry.subject_strategy)
        for row in published(contract.name):
            registered.append(RegisteredSchema(row.label, subject, registry.register(subject, row.compact)))
    return registered


def open_registry(config: "Config") -> "SchemaRegistry":
    from schemas.registry import SchemaRegistry

    if not config.registry.url:
        raise UsageError("no schema registry is set: set KEENSTREAM_REGISTRY_URL, for instance http://127.0.0.1:8081")
    return SchemaRegistry(config.registry)


def publish_into(folder: Path, *, replace: bool = False) -> Sequence[Path]:
    """Write the changed schemas and documents below `folder`, the `schemas` package; returns the paths written."""
    from schemas.avro.history import publish, write_published
    from schemas.avro.published import published, read_published
    from schemas.contracts import CONTRACTS

    place = folder / "avro"
    made = [publish(row.record, read_published(place, row.name), replace=replace) for row in CONTRACTS]
    written = [write_published(place, row) for row in made if row]
    published.cache_clear()
    return [*written, *write_documents(folder / "published")]


def write_documents(folder: Path) -> list[Path]:
    """Those whose content has changed."""
    from keenstream.contract_documents import DOCUMENTS, document_text

    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    for name, make in DOCUMENTS.items():
        path, text = folder / name, document_text(make())
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            written.append(path)
    return written


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
