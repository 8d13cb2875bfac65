"""`keenstream prepare`: topics and collections."""

from keenstream.commands.console import JSON_OPTION, console, print_json


def prepare(as_json: bool = JSON_OPTION) -> None:
    """Create the topics and collections that are missing, and check those that are there.

    Example: `KEENSTREAM_KAFKA_BOOTSTRAP=broker:9092 keenstream prepare`
    """
    from keenstream.settings import resolve_config
    from keenstream.workers import prepare as prepare_parts

    created = prepare_parts(resolve_config())
    if as_json:
        print_json({"created": created})
    else:
        console.print(f"Topics and collections are ready ({len(created)} topics are new).")
