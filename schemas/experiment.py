"""Experiments on the recall path, and the one rule that says who is in which arm."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated

import msgspec

from schemas.errors import UsageError
from schemas.names import Model

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
HOLDOUT = "holdout"  # the arm of readers outside the experiment; their answers are those without one
WEIGHT_TOLERANCE = 1e-6


class Arm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What readers of this arm get."""

    name: Name
    path: bool = True  # False: candidates as if this system did not exist
    student: Name = Model.STUDENT  # the Triton model that writes their lists
    exploration: Share = 0.0  # of answers whose order is drawn at random, so that a log can be read off-policy


OUTSIDE = Arm(name=HOLDOUT)  # what readers get outside any experiment


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The weights from `starts_at` on. Other weights move readers between arms, so a phase is analysed by itself."""

    starts_at: datetime  # with a time zone
    weights: dict[Name, Share]  # by arm; they add up to 1


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checked by `check_experiment`; `salt` makes the arms of two experiments independent of each other."""

    name: Name
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    arms: Annotated[tuple[Arm, ...], msgspec.Meta(min_length=2)]
    phases: Annotated[tuple[Phase, ...], msgspec.Meta(min_length=1)]
    holdout: Share = 0.0  # of all readers, the same ones in every experiment
    overrides: dict[str, Name] = {}  # user_id to arm: editors and testers, left out of the analysis
    ends_at: datetime | None = None  # with a time zone; from then on nobody is assigned

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)


class Assignment(msgspec.Struct, frozen=True):
    """Of one reader at one moment; no arm (None) before the first phase, after the end, and for the holdout."""

    arm: Arm | None
    phase: int = 0  # index into `phases`
    overridden: bool = False


def assign_arm(user_id: str, experiment: Experiment, at_ms: int) -> Assignment:
    """The arm of a reader at `at_ms` (UTC). Stable: a function of salt, phase and user_id alone (SHA-256).

    A phase draws its own hash, as a reader whose arm changes with the weights belongs to no arm of a pooled analysis.
    """
    phase = _phase_at(experiment, at_ms)
    if phase is None:
        return Assignment(None)
    if (forced := experiment.overrides.get(user_id)) is not None:
        return Assignment(experiment.arm(forced), phase, True)
    if _bucket(HOLDOUT, user_id) < experiment.holdout:
        return Assignment(None, phase)
    weights = experiment.phases[phase].weights
    drawn = _draw(_bucket(f"{experiment.salt}/{phase}", user_id), experiment.arms, weights)
    return Assignment(drawn, phase)


def running_experiment(experiments: Sequence[Experiment], at_ms: int) -> Experiment | None:
    """The one that assigns readers at `at_ms` (UTC); `check_experiments` sees to it that there is no second one."""
    return next((experiment for experiment in experiments if _phase_at(experiment, at_ms) is not None), None)


class Treatment(msgspec.Struct, frozen=True):
    """How one reader is answered at one moment, and what the log says of it; no experiment = as without any."""

    given: Arm
    experiment: str = ""
    arm: str = ""
    phase: int = 0


def treatment_of(user_id: str, experiments: Sequence[Experiment], at_ms: int) -> Treatment:
    """By `assign_arm` in the running experiment. The holdout is logged under its own name and answered as usual."""
    experiment = running_experiment(experiments, at_ms)
    if experiment is None:
        return Treatment(OUTSIDE)
    drawn = assign_arm(user_id, experiment, at_ms)
    given = drawn.arm or OUTSIDE
    return Treatment(given, experiment.name, given.name, drawn.phase)


def check_experiments(experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """`experiments`, when each is sound and one ends before the next starts; UsageError says which do not."""
    checked = sorted(map(check_experiment, experiments), key=lambda experiment: experiment.phases[0].starts_at)
    for kind, given in (("name", [e.name for e in checked]), ("salt", [e.salt for e in checked])):
        if twice := sorted({value for value in given if given.count(value) > 1}):
            raise UsageError(f"two experiments have the {kind} {twice[0]}: readers' arms would hang together")
    for before, after in pairwise(checked):
        if before.ends_at is None or before.ends_at > after.phases[0].starts_at:
            raise UsageError(
                f"experiments {before.name} and {after.name} would run at the same time, and both decide about the "
                f"candidates: give {before.name} an ends_at that is not after {after.phases[0].starts_at.isoformat()}"
            )
    return tuple(experiments)


def check_experiment(experiment: Experiment) -> Experiment:
    """`experiment`, when its parts agree; UsageError says which do not."""
    names = [arm.name for arm in experiment.arms]
    where = f"experiment {experiment.name}"
    if len(set(names)) < len(names) or HOLDOUT in names:
        raise UsageError(f"{where}: the arms need different names, none of them `{HOLDOUT}`")
    for number, phase in enumerate(experiment.phases):
        _check_phase(f"{where}, phase {number}", phase, names)
    starts = [phase.starts_at for phase in experiment.phases]
    if starts != sorted(set(starts)):
        raise UsageError(f"{where}: the phases must start one after another")
    if (end := experiment.ends_at) and (end.tzinfo is None or end <= starts[-1]):
        raise UsageError(f"{where}: ends_at needs a time zone and must be later than the last phase's starts_at")
    unknown = sorted(set(experiment.overrides.values()) - set(names))
    if unknown:
        raise UsageError(f"{where}: an override names the unknown arm {unknown[0]}; there are {', '.join(names)}")
    return experiment


def _check_phase(where: str, phase: Phase, names: Sequence[str]) -> None:
    if phase.starts_at.tzinfo is None:
        raise UsageError(f"{where}: starts_at needs a time zone, as in 2026-11-01T00:00:00Z")
    if set(phase.weights) != set(names):
        raise UsageError(f"{where}: one weight for each of {', '.join(names)}, and for nothing else")
    total = sum(phase.weights.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise UsageError(f"{where}: the weights add up to {total:g}; they must add up to 1")


def _phase_at(experiment: Experiment, at_ms: int) -> int | None:
    if experiment.ends_at is not None and experiment.ends_at.timestamp() * 1000 <= at_ms:
        return None
    started = [n for n, phase in enumerate(experiment.phases) if phase.starts_at.timestamp() * 1000 <= at_ms]
    return started[-1] if started else None


def _bucket(salt: str, user_id: str) -> float:
    """Uniform on [0, 1)."""
    digest = hashlib.sha256(f"{salt}\0{user_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _draw(bucket: float, arms: Sequence[Arm], weights: Mapping[str, float]) -> Arm:
    reached = 0.0
    for arm in arms:
        reached += weights[arm.name]
        if bucket < reached:
            return arm
    return next(arm for arm in reversed(arms) if weights[arm.name] > 0)  # rounding of the sum
