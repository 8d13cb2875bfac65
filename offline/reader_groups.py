"""Which readers teach, which guard, and which are reported on: a hash decides, the same in every run and on every log.

Half of all readers are held out for reports; of the others one in ten validates. The simulator, training and evaluation
all ask here, so that no reader (and no text that was made for one) is on both sides.
"""

import hashlib
from typing import Final, Literal

Group = Literal["tuning", "reported"]
SplitName = Literal["training", "validation", "held_out"]

SPLITS: Final[tuple[SplitName, ...]] = ("training", "validation", "held_out")
VALIDATION_SHARE: Final = 0.1  # of the readers who are not held out


def group_of(user_id: str) -> Group:
    """Half of the readers are there to choose settings, the others to report on."""
    return "tuning" if hashlib.blake2b(user_id.encode(), digest_size=1).digest()[0] < 128 else "reported"


def split_of(user_id: str) -> SplitName:
    if group_of(user_id) == "reported":
        return "held_out"
    drawn = hashlib.blake2b(user_id.encode(), digest_size=4, person=b"validation").digest()
    return "validation" if int.from_bytes(drawn, "big") < VALIDATION_SHARE * 2**32 else "training"
