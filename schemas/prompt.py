"""The one renderer: profile in, prompt out. Serving, training, distillation and evaluation call it.

The prompt text is not stated in the paper; this one is the project's. A version names each and a golden file
pins it: change either and the other must follow. The worked examples come first so that an engine with a prefix cache
reads them once; the bare prompt is for a student that was trained on it.
"""

from collections.abc import Iterable
from typing import Final, Literal

from schemas.errors import Unavailable
from schemas.event import Kind
from schemas.profile import Signal, UserProfile, latest_signals

PromptVersion = Literal["examples-1", "bare-1"]
EXAMPLES: Final[PromptVersion] = "examples-1"
BARE: Final[PromptVersion] = "bare-1"
STOP: Final = "\n"  # a list is one line: `query; query; query`

# The latest of each domain, in the order in which they are told. A small model copies what stands near the end, so news
# comes last; told more of the rest, it often wrote dates instead of queries before it was trained.
MAX_SIGNALS: Final[dict[PromptVersion, dict[Kind, int]]] = {
    EXAMPLES: {"page": 2, "search": 2, "click": 4},
    BARE: {"page": 4, "search": 4, "click": 8},
}
MAX_SIGNAL_CHARACTERS = 90

LABELS: dict[Kind, str] = {"page": "Pages", "search": "Searches", "click": "News read"}
_INSTRUCTION = (
    "Write the news searches that each reader would make: short, specific, one for each interest, no repeats.\n\n"
)
# Lists of phrases that stand in the signals: a small model that is shown invented topics invents too (README, Quality).
_WORKED = (
    "Pages: Weber Spirit gas grill review; Brisket rub recipe\n"
    "Searches: smoked pork shoulder; kansas city chiefs schedule\n"
    "News read: Mahomes leads late drive as Chiefs edge Bills\n"
    "News searches: Weber gas grill; brisket recipe; smoked pork shoulder; Kansas City Chiefs; Mahomes Chiefs Bills\n\n"
    "Pages: How to file taxes as a freelancer\n"
    "Searches: quarterly estimated tax deadline; child fever when to worry\n"
    "News searches: freelancer taxes; quarterly tax deadline; child fever\n\n"
    "Searches: tesla model y range winter; best home ev charger; flights to lisbon\n"
    "News read: Automakers cut electric car prices as demand slows\n"
    "News searches: Tesla Model Y range; home EV charger; flights to Lisbon; electric car prices\n\n"
    "Pages: The Best Trails in Yosemite; Osprey backpack size guide\n"
    "Searches: bear spray rules; weather tomorrow\n"
    "News read: Park Service Considers Timed Entry After Record Crowds\n"
    "News searches: Yosemite trails; Osprey backpack; bear spray rules; Park Service timed entry\n\n"
    "Pages: Galaxy S24 vs Pixel 8 camera\n"
    "Searches: gmail login; lower back pain stretches\n"
    "News read: Senate Passes Bill On Chip Subsidies; Storm Leaves Thousands Without Power In Ohio\n"
    "News searches: Galaxy S24 camera; lower back pain; Senate chip subsidies; Ohio storm\n\n"
)


def known_prompt(version: str) -> PromptVersion:
    """`version` as one that this code renders; Unavailable for weights that were trained on another."""
    for known in (EXAMPLES, BARE):
        if version == known:
            return known
    raise Unavailable(
        f"the served student was trained on the prompt {version!r}, this code renders {EXAMPLES!r} and {BARE!r}: "
        "`keenstream models rollback`, or run the code of its release"
    )


def render_prompt(profile: UserProfile, version: PromptVersion) -> str:
    """The prompt for one reader: the latest signals of each domain, newest last, texts cut at word ends."""
    lines = "".join(_render_kind(kind, signals) for kind, signals in _latest_by_kind(profile, version).items())
    head = _INSTRUCTION + _WORKED if version == EXAMPLES else ""
    return f"{head}{lines}News searches:"


def told_texts(profile: UserProfile, version: PromptVersion) -> list[str]:
    """The signals as the prompt tells them, newest of each domain first."""
    return [_cut(signal.text) for signals in _latest_by_kind(profile, version).values() for signal in signals]


def _latest_by_kind(profile: UserProfile, version: PromptVersion) -> dict[Kind, list[Signal]]:
    most = MAX_SIGNALS[version]
    chosen: dict[Kind, list[Signal]] = {kind: [] for kind in most}
    for kind, signal in latest_signals(profile):
        if len(chosen[kind]) < most[kind]:
            chosen[kind].append(signal)
    return chosen


def _render_kind(kind: Kind, newest_first: Iterable[Signal]) -> str:
    texts = "; ".join(_cut(signal.text) for signal in reversed(list(newest_first)))
    return f"{LABELS[kind]}: {texts}\n" if texts else ""


def _cut(text: str) -> str:
    flat = " ".join(text.replace(";", ",").split())
    if len(flat) <= MAX_SIGNAL_CHARACTERS:
        return flat
    return flat[:MAX_SIGNAL_CHARACTERS].rpartition(" ")[0] or flat[:MAX_SIGNAL_CHARACTERS]
