"""What sequence models are made of; apart from them because torch and RecTools take seconds to load."""

import msgspec

NAMES = ("SASRec", "GRU4Rec")


class SequenceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """RecTools' defaults, but smaller: a news log has few clicks for each reader."""

    factors: int = 64
    blocks: int = 2
    heads: int = 2
    epochs: int = 20  # at most
    patience: int = 3  # epochs without a better prediction before it ends
    longest: int = 50
    seed: int = 7
    most_apart: int = 2_000  # readers whose last click is held apart to see when to end

    def apart_of(self, readers: int) -> int:
        return max(1, min(self.most_apart, readers // 20))
