"""When a run must stop, and why: rules over its own curves, without a trainer.

Each guards against a failure that looks healthy from outside: groups whose samples all score the same give no gradient,
lists that never end are cut off, one reward is bought with another, and a training reward that rises while a held-out
measure falls is being gamed. The state is a function of the rows seen, so a resumed run rebuilds it by replaying them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

import msgspec

from offline.training.curves import STEP

REWARD, HELD_OUT = "reward", "held_out"
ZERO_VARIANCE, CLIPPED = "frac_reward_zero_std", "completions/clipped_ratio"
ONE_REWARD, ABSTAINED = "rewards/", "abstained/"

ALL_ZERO = (
    "every reward is zero, so that nothing can be learnt: warm-start first (lists must parse), look at the judge, and "
    "see that the news is of the examples' time"
)

Measure = Callable[[Any], Mapping[str, float]]  # the model as it is -> held-out measures by name


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are means over `window` steps; 1.0 switches a limit off."""

    window: int = 10
    zero_variance_limit: float = 0.8  # of the groups
    clipped_limit: float = 0.3  # of the completions
    abstained_limit: float = 0.2  # of one reward's answers
    reward_drop_limit: float = 0.5  # of the height of one reward's mean in the first window, while the sum rises
    held_out_drop: float = 0.1  # of its best value
    held_out_patience: int = 2  # measures in a row that are so much below the best


class Gates:
    """Feed it each row of the curves; it answers with the reason to stop."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self._recent: dict[str, deque[float]] = {}
        self._first: dict[str, float] = {}
        self._best: tuple[float, float] | None = None  # held-out measure, and the training reward at that time
        self._below = 0
        self._rewarded: bool | None = None  # None: no reward was seen

    @property
    def nothing_earned(self) -> bool:
        """Rewards were given, and each of them was zero."""
        return self._rewarded is False

    def observe(self, measures: Mapping[str, float]) -> str | None:
        """None to go on."""
        if REWARD in measures:
            self._rewarded = bool(self._rewarded or measures[REWARD])
        for name, value in measures.items():
            recent = self._recent.setdefault(name, deque(maxlen=self.settings.window))
            recent.append(value)
            if len(recent) == self.settings.window:
                self._first.setdefault(name, fmean(recent))
        return self._zero() or self._limits() or self._rewards() or self._held_out(measures)

    def replay(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Of the curves of the part before a kill."""
        for row in rows:
            self.observe({name: value for name, value in row.items() if name != STEP})

    def _mean(self, name: str) -> float | None:
        """Over a full window; None before that."""
        recent = self._recent.get(name, ())
        return fmean(recent) if len(recent) == self.settings.window else None

    def _zero(self) -> str | None:
        """First: lists that all score zero are also equal, and mostly never end."""
        return ALL_ZERO if self._mean(REWARD) is not None and not any(self._recent[REWARD]) else None

    def _limits(self) -> str | None:
        zero, clipped = self._mean(ZERO_VARIANCE), self._mean(CLIPPED)
        if zero is not None and zero > self.settings.zero_variance_limit:
            return (
                f"{zero:.0%} of the groups have equal rewards, which gives no gradient: raise the temperature or "
                "the number of completions, or train on readers that are harder to serve"
            )
        if clipped is not None and clipped > self.settings.clipped_limit:
            return (
                f"{clipped:.0%} of the lists never ended: the end token is not learnt, warm-start longer or raise "
                "the number of new tokens"
            )
        for name in self._recent:
            share = self._mean(name)
            if name.startswith(ABSTAINED) and share is not None and share > self.settings.abstained_limit:
                return f"the reward {name.removeprefix(ABSTAINED)!r} abstained in {share:.0%}: look at its judge"
        return None

    def _rewards(self) -> str | None:
        total = self._mean(REWARD)
        if total is None:
            return None
        if total <= self._first[REWARD]:
            return None
        for name, first in self._first.items():
            now = self._mean(name)
            if _is_one_reward(name) and now is not None and now < self._least(first):
                return f"{name} fell from {first:.3f} to {now:.3f} while the sum rose: it is paid for by another reward"
        return None

    def _least(self, first: float) -> float:
        """What a reward may fall to: a share of its height, which of a penalty, in [-1, 0], is that above -1."""
        height = first if first > 0 else 1 + first
        return first - height * (1 - self.settings.reward_drop_limit)

    def _held_out(self, measures: Mapping[str, float]) -> str | None:
        value = measures.get(HELD_OUT)
        if value is None:
            return None
        reward = fmean(self._recent[REWARD]) if self._recent.get(REWARD) else 0.0
        if self._best is None or value >= self._best[0]:
            self._best, self._below = (value, reward), 0
            return None
        best, reward_then = self._best
        self._below = self._below + 1 if value < best * (1 - self.settings.held_out_drop) else 0
        if self._below < self.settings.held_out_patience or reward <= reward_then:
            return None
        return (
            f"the training reward rose from {reward_then:.3f} to {reward:.3f} while the held-out measure fell from "
            f"{best:.3f} to {value:.3f}: the reward is being gamed"
        )


def _is_one_reward(name: str) -> bool:
    return name.startswith(ONE_REWARD) and name.endswith("/mean")
