"""Queries that might serve a reader, from sources that ask no model, and the list that brings most of what is wanted.

What is wanted are the clicks to be expected (click_model.py). A list is judged by the places that its queries fill
TOGETHER, merged as the API merges them: judged each by its own, more queries always look better, and a reader who is
served five weak ones beside a good one is served worse.
"""

import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.training.news_index import Vectors, best_places
from schemas.candidates import RANK_CONSTANT
from schemas.config import Api
from schemas.profile import UserProfile, latest_signals
from schemas.queries import MAX_QUERIES

PHRASE_WORDS = (2, 5)  # of one phrase, from and to
CHOICE_PLACES = 20  # judged by ten, lists fit the news that chose them and served other news worse
HITS_PER_QUERY = Api().articles_per_query
# Share that one more query must add to what the list brings. With 0.1 lists have 2 queries and bring a little more, but
# from them SmolLM2 learnt to write one query and found no more than eight signals do. Longer ones were not trained yet.
LEAST_GAIN = 0.02
_WORD = re.compile(r"[\w'’$%&.-]*\w[%$]?")
_FUNCTION_WORDS = frozenset(  # English; a phrase neither begins nor ends with one
    re.findall(
        r"\w+",
        "a an the and or but of in on at to for from by with without about into over after before as is are was were "
        "be been it its this that these those he she they we you i his her their our your my not no do does did how "
        "what when where who why which will would can could should may might than then so if up out off new says say "
        "said",
    )
)


class TrainingReader(msgspec.Struct, frozen=True, kw_only=True):
    """One reader at a moment, and what was clicked after it."""

    user_id: str
    profile: UserProfile  # cleaned, as it was at that moment
    clicked: tuple[str, ...]  # article ids, later


def signal_texts(profile: UserProfile) -> list[str]:
    """The reader's cleaned signals, newest first."""
    return [signal.text for _, signal in latest_signals(profile)]


def phrases(text: str) -> list[str]:
    """Runs of 2-5 words of `text` that begin and end with a content word and cross no punctuation."""
    shortest, longest = PHRASE_WORDS
    found: dict[str, None] = {}
    for part in re.split(r"[,;:!?()\[\]|]|\s[-–—]\s", text):
        words = _WORD.findall(part)
        for start in range(len(words)):
            for end in range(start + shortest, min(len(words), start + longest) + 1):
                if _content(words[start]) and _content(words[end - 1]):
                    found[" ".join(words[start:end])] = None
    return list(found)


def _content(word: str) -> bool:
    return word.casefold() not in _FUNCTION_WORDS and any(character.isalpha() for character in word)


def votes_of(cosines: Vectors) -> Vectors:
    """[queries, articles] -> votes of reciprocal rank fusion, 1 / (60 + rank), for each query's nearest articles."""
    nearest = best_places(cosines, HITS_PER_QUERY)
    ranks = np.arange(1, nearest.shape[1] + 1, dtype=np.float32)
    found = np.zeros(cosines.shape, np.float32)
    np.put_along_axis(found, nearest, 1 / (RANK_CONSTANT + ranks)[None, :], axis=1)
    return found


def brought(votes: NDArray[np.floating[Any]], wanted: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    """[..., articles] fused votes -> what stands in the first `places` of all that is wanted, as a share of the most
    that can stand there."""
    places = min(places, len(wanted))
    most = np.sort(wanted)[-places:].sum()
    served = np.argpartition(-votes, places - 1, axis=-1)[..., :places]
    voted = np.take_along_axis(votes, served, axis=-1) > 0
    return np.asarray((wanted[served] * voted).sum(axis=-1) / max(most, 1e-12), np.float64)


def fused_list(votes: Vectors, wanted: NDArray[np.float64]) -> list[int]:
    """At most five rows of `votes` [candidates, articles], greedily, each the one that brings most beside the former.

    It ends where no candidate adds LEAST_GAIN of what the list brings already. Ties go to the earlier candidate.
    """
    fused, chosen, reached = np.zeros(votes.shape[1], np.float32), list[int](), 0.0
    while len(chosen) < MAX_QUERIES and len(votes):
        gains = brought(fused + votes, wanted, CHOICE_PLACES)
        best = int(gains.argmax())
        if gains[best] <= reached * (1 + LEAST_GAIN):
            break
        chosen.append(best)
        fused, reached = fused + votes[best], float(gains[best])
    return chosen
