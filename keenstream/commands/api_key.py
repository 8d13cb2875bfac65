"""`keenstream api-key create`: a key for the API."""

from typing import Annotated

import typer

from keenstream.commands.console import JSON_OPTION, console, print_json

app = typer.Typer(no_args_is_help=True, help="Keys for the API. A key is revoked by removing its line.")


@app.callback()
def keys() -> None:
    """Keys for the API. A key is revoked by removing its line."""


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="Who will use it; logs and metrics show this name, never the key.")],
    scopes: Annotated[
        str, typer.Option(help="Of read (GET, search), write (events, outcomes) and erase (forget a reader).")
    ] = "read",
    as_json: bool = JSON_OPTION,
) -> None:
    """Make a key. It is shown once; the server keeps the line with its hash.

    Example: `keenstream api-key create --name recommender --scopes read,write`
    """
    from stream.api.access import key_line, new_key

    key = new_key()
    line = key_line(name, [scope.strip() for scope in scopes.split(",")], key)
    if as_json:
        print_json({"key": key, "line": line})
        return
    console.print("The key, shown only now; clients send it in the header x-api-key, our commands take it from")
    console.print("KEENSTREAM_API_KEY:\n")
    console.print(f"  {key}\n", markup=False, soft_wrap=True)
    console.print("The line for the server's keys file (KEENSTREAM_API_KEYS_FILE, which others must not read):\n")
    console.print(f"  {line}", markup=False, soft_wrap=True)
