"""The curves of a run: a line of JSON for each step as it is measured; a table and a plot from them at any time."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

LINES, TABLE, PLOT = "curves.jsonl", "curves.csv", "curves.png"
STEP = "step"
_PLOTTED = 12  # panels at most

Row = dict[str, float]


class Curves:
    """Rows of measures by name, appended to a file; a row that was cut short by a kill is dropped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows = _read_rows(folder / LINES)

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run goes on from there and measures it anew."""
        self.rows = [row for row in self.rows if row[STEP] <= step]
        part = self._folder / f".{LINES}.part"
        part.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in self.rows))
        part.replace(self._folder / LINES)

    def add(self, step: int, measures: Mapping[str, float]) -> None:
        row: Row = {STEP: float(step), **measures}
        self.rows.append(row)
        with (self._folder / LINES).open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")

    def write_table(self) -> None:
        """One line for each step, one column for each measure."""
        names = [STEP, *measure_names(self.rows)]
        with (self._folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(_merged(self.rows))

    def write_plot(self) -> None:
        """A panel for each of the first measures, as PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = measure_names(self.rows)[:_PLOTTED]
        if not names:
            return
        figure = Figure(figsize=(10, 2.2 * ((len(names) + 1) // 2)), layout="constrained")
        FigureCanvasAgg(figure)
        for place, name in enumerate(names):
            panel = figure.add_subplot((len(names) + 1) // 2, min(2, len(names)), place + 1)
            points = [(row[STEP], row[name]) for row in self.rows if name in row]
            panel.plot([step for step, _ in points], [value for _, value in points], linewidth=1)
            panel.set_title(name, fontsize=8)
            panel.tick_params(labelsize=7)
        figure.savefig(self._folder / PLOT, dpi=110)


def measure_names(rows: Sequence[Row]) -> list[str]:
    """In the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row if name != STEP))


def _merged(rows: Sequence[Row]) -> list[Row]:
    by_step: dict[float, Row] = {}
    for row in rows:
        by_step.setdefault(row[STEP], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def _read_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(msgspec.json.decode(line, type=Row))
        except msgspec.MsgspecError:
            break  # cut short: whatever follows was never written
    return rows
