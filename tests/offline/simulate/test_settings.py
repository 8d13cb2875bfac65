import pytest

from offline.simulate import SimulationSettings, checked, run_id
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (SimulationSettings(gap=1.2), "gap"),
        (SimulationSettings(noise_share=-0.1), "noise_share"),
        (SimulationSettings(readers=0), "readers"),
        (SimulationSettings(days=0.0), "days"),
    ],
)
def test_what_is_out_of_bounds_is_named(settings: SimulationSettings, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        checked(settings)


def test_every_setting_makes_another_run() -> None:
    assert run_id(SimulationSettings()) == run_id(SimulationSettings())
    assert len({run_id(SimulationSettings(seed=seed, gap=gap)) for seed in (1, 2) for gap in (0.0, 0.5)}) == 4


def test_a_whole_number_makes_the_same_run_as_its_float() -> None:
    assert run_id(SimulationSettings(events_per_reader=25)) == run_id(SimulationSettings(events_per_reader=25.0))
