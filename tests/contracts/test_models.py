"""What `Student`, `Embedder` and `Cleaner` promise, on the in-memory twins and on the real Triton with real models."""

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from schemas.clients.memory_models import MemoryCleaner, MemoryEmbedder, MemoryStudent
from schemas.clients.models import Cleaner, Completion, Embedder, Student
from schemas.clients.triton import TritonCleaner, TritonEmbedder, TritonStudent
from schemas.errors import PermanentError
from schemas.names import EMBEDDING_DIMENSIONS
from schemas.prompt import known_prompt

IMPLEMENTATIONS = ["memory", pytest.param("triton", marks=pytest.mark.stack)]
PROMPTS = [
    "Pages: Weber gas grill; Brisket rub\nSearches: smoked pork\nNews searches:",
    "Searches: flights to lisbon; passport renewal\nNews searches:",
]


@pytest.fixture(params=IMPLEMENTATIONS)
async def student(request: pytest.FixtureRequest) -> AsyncIterator[Student]:
    make: dict[str, Callable[[], Student]] = {
        "memory": MemoryStudent,
        "triton": lambda: TritonStudent(request.getfixturevalue("triton")),
    }
    made = make[request.param]()
    yield made
    await made.close()


@pytest.fixture(params=IMPLEMENTATIONS)
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    make: dict[str, Callable[[], Embedder]] = {
        "memory": MemoryEmbedder,
        "triton": lambda: TritonEmbedder(request.getfixturevalue("triton")),
    }
    made = make[request.param]()
    yield made
    await made.close()


@pytest.fixture(params=IMPLEMENTATIONS)
async def cleaner(request: pytest.FixtureRequest) -> AsyncIterator[Cleaner]:
    make: dict[str, Callable[[], Cleaner]] = {
        "memory": MemoryCleaner,
        "triton": lambda: TritonCleaner(request.getfixturevalue("triton"), deadline_seconds=30.0),
    }
    made = make[request.param]()
    yield made
    await made.close()


async def written(student: Student, prompt: str, samples: int = 1, seed: int = 0) -> Completion:
    (answer,) = await student.write([prompt], samples=samples, seed=seed)
    assert isinstance(answer, Completion)
    return answer


async def test_each_prompt_gets_a_list_of_one_line(student: Student) -> None:
    answers = await student.write(PROMPTS)
    assert len(answers) == len(PROMPTS)
    for answer in answers:
        assert isinstance(answer, Completion)
        assert len(answer.texts) == 1
        assert "\n" not in answer.texts[0]
        assert answer.model_version
        assert known_prompt(answer.prompt_version)  # one that this code renders


async def test_no_prompts_no_answers(student: Student) -> None:
    assert await student.write([]) == []


async def test_greedy_writes_the_same_again(student: Student) -> None:
    assert await written(student, PROMPTS[0]) == await written(student, PROMPTS[0])


async def test_samples_repeat_with_their_seed(student: Student) -> None:
    first, again = [await written(student, PROMPTS[0], samples=3, seed=5) for _ in range(2)]
    assert len(first.texts) == 3
    assert first == again


@pytest.mark.parametrize("bad", ["", "   ", "word " * 5000])
async def test_a_bad_prompt_among_eight_leaves_seven_good(student: Student, bad: str) -> None:
    prompts = [PROMPTS[number % 2] for number in range(8)]
    prompts[3] = bad
    answers = await student.write(prompts)
    assert isinstance(answers[3], PermanentError)
    assert sum(isinstance(answer, Completion) for answer in answers) == 7


async def test_too_many_samples_are_refused_for_good(student: Student) -> None:
    (answer,) = await student.write(PROMPTS[:1], samples=1000)
    assert isinstance(answer, PermanentError)
    assert "samples" in str(answer)


async def test_any_text_is_a_prompt(student: Student) -> None:
    odd = ["\ud800 half a pair\nNews searches:", "<|im_end|> \x00 ; | 漢字\nNews searches:"]
    assert all(isinstance(answer, Completion) for answer in await student.write(odd))


async def test_vectors_have_length_one_and_keep_the_order(embedder: Embedder) -> None:
    texts = [f"story number {number}" for number in range(150)]  # more than one batch
    vectors = await embedder.embed(texts)
    assert vectors.shape == (150, EMBEDDING_DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)
    alone = await embedder.embed([texts[100]])
    np.testing.assert_allclose(vectors[100], alone[0], atol=5e-3)


async def test_no_texts_no_vectors(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, EMBEDDING_DIMENSIONS)


async def test_like_texts_are_nearer_than_unlike_ones(embedder: Embedder) -> None:
    here, near, far = await embedder.embed(["measles vaccine", "vaccine against measles", "brisket rub recipe"])
    assert here @ near > here @ far


@pytest.mark.parametrize("odd", ["", " \n", "\ud800", "word " * 200_000])
async def test_any_text_has_a_vector(embedder: Embedder, odd: str) -> None:
    vectors = await embedder.embed([odd, "news"])
    assert np.isfinite(vectors).all()


async def test_the_version_names_the_weights(embedder: Embedder) -> None:
    version = await embedder.version()
    assert version
    assert await embedder.version() == version


async def test_noise_is_told_from_an_interest_in_the_order_asked(cleaner: Cleaner) -> None:
    texts = ["inbox (3) - slack", "brisket rub", "your cart (4) - walmart", "Senate passes bill on chip subsidies"] * 50
    verdicts = await cleaner.judge(texts)  # more than one batch
    assert verdicts.noise == (True, False, True, False) * 50
    assert verdicts.model_version


async def test_the_same_text_gets_the_same_verdict_alone(cleaner: Cleaner) -> None:
    alone = await cleaner.judge(["inbox (3) - slack"])
    assert alone == await cleaner.judge(["inbox (3) - slack"])
    assert alone.noise == (True,)


async def test_no_texts_no_verdicts(cleaner: Cleaner) -> None:
    assert (await cleaner.judge([])).noise == ()


@pytest.mark.parametrize("odd", ["", " \n", "\ud800", "word " * 200_000])
async def test_any_text_has_a_verdict(cleaner: Cleaner, odd: str) -> None:
    assert len((await cleaner.judge([odd, "brisket rub"])).noise) == 2
