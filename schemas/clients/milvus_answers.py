"""Search answers by column. pymilvus builds an object and a dictionary for every hit, which for a reader's eleven
queries costs more than all the rest of a request; here the columns of the answer become plain tuples.

This replaces one method of pymilvus's handler, inside its retrying and reconnecting; pymilvus is pinned exactly, and
the contract's tests run over it.
"""

from collections.abc import Sequence
from itertools import islice
from types import MethodType
from typing import Any

from pymilvus.client.call_context import _api_level_md
from pymilvus.client.utils import check_status

Found = tuple[Any, ...]  # primary key, similarity, then the fields that were asked for


def answer_by_columns(handler: Any) -> None:
    """From now on `handler.search` returns the answer's message instead of pymilvus's objects."""
    handler._execute_search = MethodType(_execute_search, handler)


def found_rows(answer: Any, fields: Sequence[str], vectors: int) -> list[list[Found]]:
    """The rows found for each of the `vectors`, best first."""
    keys = answer.ids.str_id.data
    if not keys:  # the columns then have no type
        return [[] for _ in range(vectors)]
    columns = {field.field_name: _column(field) for field in answer.fields_data}
    rows = zip(keys, answer.scores, *(columns[name] for name in fields), strict=True)
    return [list(islice(rows, count)) for count in answer.topks]


async def _execute_search(
    handler: Any, request: Any, timeout: float | None = None, context: Any = None, **_: object
) -> Any:
    response = await handler._async_stub.Search(request, timeout=timeout, metadata=_api_level_md(context))
    check_status(response.status)
    return response.results


def _column(field: Any) -> Sequence[Any]:
    data: Sequence[Any] = getattr(field.scalars, field.scalars.WhichOneof("data")).data
    return data
