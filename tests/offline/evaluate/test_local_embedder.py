import pickle
from pathlib import Path

import numpy as np
import pytest

from offline.evaluate.local_embedder import LocalEmbedder
from schemas.errors import UsageError

TEXTS = ["storm in ohio", "a much longer text about a chip bill that passed the senate " * 3, "storm", ""]


@pytest.fixture(scope="module")
def embedder(model_repository: Path) -> LocalEmbedder:
    return LocalEmbedder(model_repository.parent / "embedder", threads=1)


async def test_vectors_have_length_one_and_the_order_of_the_texts(embedder: LocalEmbedder) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (4, 384) and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-2)
    alone = await embedder.embed(TEXTS[:1])
    assert vectors[0] @ alone[0] > 0.99
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]


async def test_a_copy_in_another_process_answers_the_same(embedder: LocalEmbedder) -> None:
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301  # our own bytes
    assert await copy.version() == await embedder.version()
    assert np.array_equal(await copy.embed(TEXTS), await embedder.embed(TEXTS))


def test_a_folder_without_an_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no embedder"):
        LocalEmbedder(tmp_path)
