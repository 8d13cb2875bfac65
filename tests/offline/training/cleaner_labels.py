"""A few hundred labelled texts of 60 readers: noise of three forms, one of which the rules know, and interests."""

import random
from pathlib import Path

import msgspec

from offline.training.labels import Label

_CITIES = ("boston", "denver", "seattle", "austin", "oslo", "leeds", "quito", "perth")
_THINGS = ("brisket rub", "trail map", "guitar strings", "oak desk", "sourdough starter", "tent pegs", "linen shirt")
_USES = ("for beginners", "review", "how to clean", "under a budget", "that lasts", "explained")


def write_labels(path: Path) -> Path:
    draw = random.Random(7)
    rows = [row for number in range(60) for row in _of_reader(f"reader-{number}", draw)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def _of_reader(user_id: str, draw: random.Random) -> list[Label]:
    noise = [f"weather {draw.choice(_CITIES)}", f"invoice {draw.randint(10, 99_999)}", "facebook login"]
    kept = [f"{draw.choice(_THINGS)} {draw.choice(_USES)}" for _ in range(6)]
    rows = [Label(text, "drop", user_id=user_id) for text in noise]
    return rows + [Label(text, "keep", user_id=user_id) for text in kept]
