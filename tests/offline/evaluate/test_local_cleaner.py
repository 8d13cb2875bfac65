from pathlib import Path

import pytest

from offline.evaluate.local_cleaner import LocalCleaner
from schemas.errors import UsageError


async def test_it_judges_as_the_served_one(model_repository: Path) -> None:
    cleaner = LocalCleaner(model_repository.parent / "cleaner")
    found = await cleaner.judge(["youtube", "brisket rub recipe"] * 100)  # more than one batch
    assert found.model_version.startswith("keenstream-cleaner-")
    assert found.noise == (True, False) * 100
    assert (await cleaner.judge([])).noise == ()


def test_a_folder_without_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no cleaner"):
        LocalCleaner(tmp_path)
