"""What the log of a simulated experiment is like, and which faults are planted in it."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from schemas.errors import UsageError
from schemas.experiment import Arm, Experiment, Phase, Share, check_experiment

DAY_MS: Final = 86_400_000
CONTROL: Final = "control"
TREATMENT: Final = "treatment"
COLD_SIGNALS: Final = 3  # at most so many are kept of a cold reader
BOT_REQUESTS: Final = 200  # in the history: more make a bot; no reader comes so often

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Lift = Annotated[float, msgspec.Meta(gt=-1)]
Many = Annotated[int, msgspec.Meta(ge=1)]


class LogFaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares, each drawn by itself; what was really planted is counted in `Planted`."""

    bots: Share = 0.0  # of readers: hundreds of requests before the experiment, clicks without taste
    crossovers: Share = 0.0  # of readers with two requests in a phase: the later ones are logged in the other arm
    misassigned: Share = 0.0  # of readers: in the other arm than `assign_arm` gives, and treated so
    lost_treatment: Share = (
        0.0  # of readers of the treatment: nothing of the experiment is logged (a broken sample ratio)
    )
    duplicate_exposures: Share = 0.0  # of rows: logged again with the same id
    duplicate_outcomes: Share = 0.0
    late: Share = 0.0  # of outcomes: they reach the log up to `late_hours` after they happened
    late_hours: Positive = 24.0
    late_treatment: Share = 0.0  # of outcomes of the treatment, besides: its pages log later
    lost_clicks: Share = 0.0  # of clicks of the treatment: not logged, while their dwell is
    negative_lags: Share = 0.0  # of clicks: dated before their exposure
    anonymous: Share = 0.0  # further rows without a reader: half null, half empty


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An A/B test with a known effect. The defaults are a plausible news portal, not a measured one.

    A lift is relative: 0.1 multiplies the chance of each click (the rate of visits, the seconds of a dwell) by 1.1.
    """

    seed: Annotated[int, msgspec.Meta(ge=0)] = 7
    readers: Many = 20_000
    days: Positive = 14.0
    history_days: NotNegative = 14.0
    window_days: Positive = 3.0
    name: str = "path"
    start_ms: int = 1_767_571_200_000  # 2026-01-05, a Monday
    places: Many = 5
    articles: Many = 2_000
    base_ctr: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.12  # of the best article at the top, over readers
    cold_share: Share = 0.3
    cold_lift: Lift = 0.10
    warm_lift: Lift = 0.04
    activity_lift: Lift = 0.02  # of the rate of visits after the first exposure
    dwell_lift: Lift = 0.0
    trigger_share: Share = 1.0  # of readers for whom the path has something: the others feel no treatment
    position_bias: NotNegative = 0.7  # a place is looked at with probability place ** -position_bias
    appeal_decay: NotNegative = 0.2  # the ranking's article number n appeals n ** -appeal_decay as much as its first
    taste_spread: NotNegative = 0.6  # log-normal sigma of clicking between readers
    activity_spread: NotNegative = 0.8  # and of visits
    visits_per_day: Positive = 0.7
    dwell_seconds: Positive = 60.0
    dwell_spread: NotNegative = 1.0
    treatment_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    ramp: tuple[Annotated[float, msgspec.Meta(gt=0, lt=1)], ...] = ()  # treatment's share in earlier phases
    ramp_days: Positive = 2.0  # of each of them
    exploration: Share = 0.0  # of answers in random order, in both arms
    pool: Many = 10  # articles that they are drawn from
    faults: LogFaults = LogFaults()
    chunk_readers: Many = 5_000  # made at once: bounds memory; part of what the seed repeats

    @property
    def end_ms(self) -> int:
        return self.start_ms + round(self.days * DAY_MS)

    @property
    def phase_bounds_ms(self) -> tuple[tuple[int, int], ...]:
        """[first, last) of each phase."""
        starts = [self.start_ms + round(n * self.ramp_days * DAY_MS) for n in range(len(self.ramp) + 1)]
        return tuple(itertools.pairwise([*starts, self.end_ms]))


def check_settings(settings: LogSettings) -> LogSettings:
    """`settings`, when its parts agree; UsageError says which do not."""
    try:
        msgspec.convert(msgspec.to_builtins(settings), LogSettings)
    except msgspec.ValidationError as error:
        raise UsageError(f"simulated experiment: {error}") from error
    last_phase_days = settings.days - len(settings.ramp) * settings.ramp_days
    if last_phase_days <= settings.window_days:
        raise UsageError(
            f"the last phase has {last_phase_days:g} days and the window {settings.window_days:g}: no reader's window "
            "would pass; give more days, or a shorter window or ramp"
        )
    if settings.pool < settings.places:
        raise UsageError(f"a pool of {settings.pool} articles cannot fill {settings.places} places")
    if settings.articles < settings.pool:
        raise UsageError(f"{settings.articles} articles cannot fill a pool of {settings.pool}")
    if settings.faults.bots and not settings.history_days:
        raise UsageError("bots are known by their history: give history_days")
    return settings


def changed_settings(changes: Sequence[str]) -> LogSettings:
    """The defaults with changes such as `cold_lift=0.2`, `faults.bots=0.01` and `ramp=[0.1,0.3]`; the last one wins."""
    faults: dict[str, Any] = {}
    values: dict[str, Any] = {"faults": faults}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise UsageError(f"{change}: give a name and a value, such as cold_lift=0.2")
        inner = name.removeprefix("faults.")
        (values if inner == name else faults)[inner] = _value(text)
    try:
        return check_settings(msgspec.convert(values, LogSettings))
    except msgspec.ValidationError as error:
        raise UsageError(f"simulated experiment: {error}; settings: {', '.join(_names())}") from error


def _value(text: str) -> Any:
    """JSON, or the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _names() -> list[str]:
    own = [name for name in LogSettings.__struct_fields__ if name != "faults"]
    return [*own, *(f"faults.{name}" for name in LogFaults.__struct_fields__)]


def experiment_of(settings: LogSettings) -> Experiment:
    """Another seed draws other arms."""
    shares = (*settings.ramp, settings.treatment_share)
    phases = tuple(
        Phase(
            starts_at=datetime.fromtimestamp(first / 1000, UTC),
            weights={CONTROL: 1 - share, TREATMENT: share},
        )
        for (first, _), share in zip(settings.phase_bounds_ms, shares, strict=True)
    )
    return check_experiment(
        Experiment(
            name=settings.name,
            salt=f"{settings.name}-{settings.seed}",
            arms=(
                Arm(name=CONTROL, path=False, exploration=settings.exploration),
                Arm(name=TREATMENT, exploration=settings.exploration),
            ),
            phases=phases,
        )
    )
