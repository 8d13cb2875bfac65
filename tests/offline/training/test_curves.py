import csv
from pathlib import Path

from offline.training.curves import LINES, PLOT, TABLE, Curves


def test_rows_are_read_back_and_a_torn_one_is_dropped(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(1, {"loss": 2.0})
    curves.add(2, {"loss": 1.0})
    with (tmp_path / LINES).open("ab") as file:
        file.write(b'{"step":3,"lo')
    assert Curves(tmp_path).rows == [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}]


def test_rewinding_forgets_what_came_after_a_checkpoint(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for step in range(5):
        curves.add(step, {"loss": 1.0})
    curves.rewind(2)
    curves.add(3, {"loss": 0.5})
    assert [row["step"] for row in Curves(tmp_path).rows] == [0, 1, 2, 3]


def test_the_table_has_a_line_for_each_step_and_a_column_for_each_measure(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(0, {"held_out": 0.1})
    curves.add(1, {"loss": 2.0})
    curves.add(1, {"held_out": 0.2})
    curves.write_table()
    with (tmp_path / TABLE).open() as file:
        assert list(csv.DictReader(file)) == [
            {"step": "0.0", "held_out": "0.1", "loss": ""},
            {"step": "1.0", "held_out": "0.2", "loss": "2.0"},
        ]


def test_the_plot_is_a_picture_and_nothing_measured_makes_none(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.write_plot()
    assert not (tmp_path / PLOT).exists()
    curves.add(1, {f"measure {number}": 1.0 for number in range(3)})
    curves.write_plot()
    assert (tmp_path / PLOT).read_bytes().startswith(b"\x89PNG")
