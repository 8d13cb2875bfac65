"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor


class _Id(Convertor[str]):
    """An id in a path, which may hold slashes. Starlette's own `path` finds no route where one holds a line break; here
    the route's check tells what is wrong with it."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())

UserId = Annotated[
    str,
    Path(
        min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["reader-42"], description="The reader."
    ),
]
