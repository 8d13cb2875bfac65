"""Names of policies that mean something beyond themselves: what was made of a model's lists, and a model's part."""

from typing import Final

OWN_SIGNALS: Final = "own signals"  # the name begins so; how many follows
STORED_SIGNALS: Final = f"{OWN_SIGNALS} (8)"  # as many as the stream stores (schemas/config.py, Interests)
CLICK_MODEL: Final = "click model (ranks all news)"  # no rival: what candidates leave to be had (expectations.py)
FUSED: Final = " + best baseline"
BESIDE: Final = f" + {STORED_SIGNALS}"  # as the API serves them
BEST_OF: Final = ", best of {}"
CLEANED: Final = ", cleaned"  # the same on profiles as the served cleaner leaves them

# Models of these names are compared as the paper compares them (claims.py).
PROMPT_ONLY: Final = "prompt-only"
TEACHER: Final = "teacher"
STUDENT: Final = "student"
SUPERVISED: Final = "student-supervised"
UNDISTILLED: Final = "student-none"
WITHOUT: Final = "teacher-without-"  # a reward's name follows
