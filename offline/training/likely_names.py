"""Names that readers of like prompts are given: what a model is shown can then be told from the prompt.

A name that is best by a hair for one reader is noise to whoever sees the prompt alone, and a small model that is shown
each prompt once learns lists of such names badly (it writes fewer different ones). A ridge regression from the prompt
to the names of the chosen lists keeps what like prompts share; among its likeliest ones the list is chosen again
(warm_start.py). It is cross-fitted, so that no reader's own list decides, and within the halves of the click model
(click_model.py), so that no reader's own later clicks do either.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict

from offline.training.click_model import halves_of
from offline.training.interest_names import Embed
from offline.training.news_index import Vectors
from offline.training.proposals import TrainingReader
from schemas.prompt import BARE, render_prompt, told_texts

LEAST_READERS: Final = 1_000  # fewer say too little of one another
MOST_IN_KERNEL: Final = 10_000  # readers of a half: 800 MB; more are fitted name by name, slower and to the same end
LIKELY: Final = 10  # twice as many as a list has: 5 found a tenth less, all names hardly more
_PENALTY: Final = 3.0
_FOLDS: Final = 5
_TEXT_WEIGHT: Final = 0.25  # of a told text's vector, beside words whose vector has length one


def likely_names(
    readers: Sequence[TrainingReader], lists: Sequence[Sequence[int]], names: int, embed: Embed
) -> list[list[int]]:
    """For each reader LIKELY of the `names`, the likeliest first; the lists as they are for few readers."""
    if len(readers) < LEAST_READERS:
        return [list(row) for row in lists]
    wanted = np.zeros((len(readers), names), np.float32)
    for row, chosen in enumerate(lists):
        wanted[row, list(chosen)] = 1.0
    features, likely = _features(readers, embed), np.zeros_like(wanted)
    halves = np.array(halves_of(readers))
    users = np.array([reader.user_id for reader in readers])
    for half in (0, 1):
        rows = np.flatnonzero(halves == half)
        likely[rows] = _cross_predicted(features[rows], wanted[rows], users[rows])
    best = np.argsort(-likely, axis=1, kind="stable")[:, :LIKELY]
    return [[int(place) for place in row] for row in best]


def _cross_predicted(features: Any, wanted: Vectors, users: NDArray[np.str_]) -> Vectors:
    regression: Any = Ridge(alpha=_PENALTY, fit_intercept=False, solver="lsqr", tol=1e-6)
    if features.shape[0] <= MOST_IN_KERNEL:
        regression = KernelRidge(alpha=_PENALTY, kernel="precomputed")  # once, not once for each fold
        features = (features @ features.T).toarray()
    predicted = cross_val_predict(regression, features, wanted, groups=users, cv=GroupKFold(_FOLDS))
    return np.asarray(predicted, np.float32)


def _features(readers: Sequence[TrainingReader], embed: Embed) -> Any:
    """[readers, words and dimensions], sparse."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    told = words.fit_transform([render_prompt(reader.profile, BARE) for reader in readers])
    meanings = np.stack([_meaning(told_texts(reader.profile, BARE), embed) for reader in readers])
    ones = np.ones((len(readers), 1), np.float32)
    return sparse.hstack([told, sparse.csr_matrix(meanings), sparse.csr_matrix(ones)]).tocsr()


def _meaning(texts: Sequence[str], embed: Embed) -> Vectors:
    return np.asarray(embed(texts).sum(axis=0) * _TEXT_WEIGHT, np.float32)
