"""DELETE /v1/users/{id}: the same erasure as the command's, answered with its receipt."""

from typing import Any, Protocol

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.routing import Match

from schemas.erasure import ErasureReceipt
from stream.api.documentation import reference, responses
from stream.api.http import answer
from stream.api.parameters import UserId
from stream.erasure.receipts import is_online
from stream.erasure.service import ONLINE_SECONDS

_UNDER_WAY = "The wish is stored; what the workers have yet to do is `under way` in the receipt. Ask again."
_EXAMPLE = {
    "version": 1,
    "user_id": "reader-42",
    "erased_before": 1_767_225_600_000,
    "requested_at": 1_767_225_600_000,
    "answered_at": 1_767_225_601_400,
    "online_seconds": 1.2,
    "found_anything": True,
    "complete": False,
    "stores": [
        {
            "store": "profile",
            "state": "clean",
            "unit": "signals",
            "found": 17,
            "removed": 17,
            "at": 1_767_225_600_300,
            "gone_by": 1_767_312_000_300,
        },
        {"store": "queries", "state": "clean", "unit": "rows", "found": 13, "removed": 13, "at": 1_767_225_600_900},
        {"store": "archive", "state": "under way", "unit": "rows", "detail": "the archive worker rewrites the files"},
    ],
}


class Eraser(Protocol):
    """`stream.erasure.service.EraseService`."""

    async def erase(self, user_id: str, *, wait_seconds: float) -> ErasureReceipt: ...


def add_erasure(router: APIRouter, eraser: Eraser, *, request_seconds: float) -> None:
    """`request_seconds`: a request is cut off after so long; dead letters and the receipt need their share of it."""
    wait_seconds = min(ONLINE_SECONDS, request_seconds / 2)

    @router.delete("/v1/users/{user_id:id}", summary="Forget a reader", responses=_documented())
    async def delete_user(user_id: UserId, request: Request) -> Response:
        """Erase what is known of a reader up to now; the receipt says for each store what was found and removed.

        200 when everything that readers are served from is clean, else 202: the wish is stored and will be carried out.
        Files of the archive are rewritten by its worker. An unknown reader gets a receipt that says nothing was found.
        Late events of before the erasure are not taken; a reader who comes back is a new one.
        """
        _refuse_parts_of_readers(request)
        receipt = await eraser.erase(user_id, wait_seconds=wait_seconds)
        clean = all(store.state == "clean" for store in receipt.stores if is_online(store))
        return answer(receipt, 200 if clean else 202)


def _refuse_parts_of_readers(request: Request) -> None:
    """An id may hold slashes, so `DELETE /v1/users/ann/profile` looks like a wish of a reader `ann/profile`. Who sends
    it means something else. Such a reader is erased by the command."""
    if any(route.matches(request.scope)[0] == Match.PARTIAL for route in request.app.routes):
        raise HTTPException(405, "a part of a reader cannot be deleted: DELETE /v1/users/{id}", {"Allow": "GET"})


def _documented() -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": reference(ErasureReceipt), "example": _EXAMPLE}}
    done = responses(ErasureReceipt, 401, 422, 503)
    return {
        **done,
        200: {"description": "Done.", "content": content},
        202: {"description": _UNDER_WAY, "content": content},
    }
