"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Path

UserId = Annotated[
    str,
    Path(
        min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["reader-42"], description="The reader."
    ),
]
