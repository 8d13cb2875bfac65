"""`keenstream show USER`: what a reader did, the queries written for them, and what those find."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from keenstream.commands.console import JSON_OPTION, console, print_json
from schemas.errors import KeenstreamError, Unavailable, UsageError
from schemas.event import KINDS

SHOWN_SIGNALS = 10


def show(
    user: Annotated[str, typer.Argument(help="The reader's user_id.")],
    k: Annotated[int, typer.Option(min=1, max=100, help="How many articles.")] = 10,
    as_json: bool = JSON_OPTION,
) -> None:
    """Show one reader: latest signals, queries, and candidates with the query that found each.

    Example: `keenstream show reader-000001`
    """
    from keenstream.settings import resolve_config

    api = resolve_config().api
    reader = fetch_reader(f"http://{api.host}:{api.port}", user, k)
    if as_json:
        print_json(reader)
    else:
        print_reader(user, reader)


def fetch_reader(address: str, user: str, k: int) -> dict[str, Any]:
    """Profile, queries and candidates from the API at `address`, with the key of the environment."""
    import httpx

    from keenstream.settings import KEY_VARIABLE, api_headers

    with httpx.Client(base_url=address, headers=api_headers(), timeout=10.0) as client:
        path = f"/v1/users/{quote(user, safe='')}"
        try:
            answers = {
                name: client.get(f"{path}/{name}", params={"k": k} if name == "candidates" else {})
                for name in ("profile", "queries", "candidates")
            }
        except httpx.TransportError as error:
            raise Unavailable(
                f"no API answers at {address} ({type(error).__name__}): start it with `keenstream worker api`, "
                "or everything with `KEEP=1 make demo`"
            ) from error
    if answers["profile"].status_code == 404:
        raise UsageError(f"no reader {user} is known yet; send events of theirs with `keenstream send FILE`")
    for name, answer in answers.items():
        if answer.status_code in (401, 403):
            raise UsageError(f"the API wants a key with the scope read in {KEY_VARIABLE}: {answer.text[:300]}")
        if answer.is_server_error or answer.status_code == 429:
            raise KeenstreamError(f"the API answered {answer.status_code} for {name}: {answer.text[:300]}")
    return {name: answer.json() for name, answer in answers.items()}


def print_reader(user: str, reader: dict[str, Any]) -> None:
    """Three short tables: signals, queries, articles."""
    signals = Table("domain", "what the reader did", title=f"Reader {user}", title_justify="left")
    for kind, text in _latest(reader["profile"])[:SHOWN_SIGNALS]:
        signals.add_row(kind, text)
    queries = Table("source", "query", title="Queries", title_justify="left")
    for query in reader["queries"].get("queries", []):
        queries.add_row(query["source"], query["query"])
    articles = Table("article", "found by", "source", title="Candidates", title_justify="left")
    for candidate in reader["candidates"].get("candidates", []):
        articles.add_row(candidate["title"], candidate["query"], candidate["source"])
    for table in (signals, queries, articles):
        console.print(table)


def _latest(profile: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(row["occurred_at"], kind, row["text"]) for kind in KINDS for row in profile[kind]]
    return [(kind, text) for _, kind, text in sorted(rows, reverse=True)]
