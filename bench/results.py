"""What the benches found: figures by bench, row and column, and how they stand to the targets.

A figure keeps the value of every round, and its median is what counts.  A ratio is taken within one
round, between measures that lie next to each other, and is a figure of its own; so the median of
the ratios is shown and never the ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Target:
    """A figure and the bound that it has to keep."""

    bench: str
    text: str
    value: float
    limit: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass
class Results:
    """The figures of a run, in the order in which they came."""

    titles: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def title(self, bench: str, text: str) -> None:
        """Say what a bench measured."""
        self.titles[bench] = text

    def add(self, bench: str, row: str, **columns: float | None) -> None:
        """Add one round's values of a row's columns; None is left out.

        A column's name may have an underscore for each space.
        """
        self.put(bench, row, {name.replace("_", " "): value for name, value in columns.items()})

    def put(self, bench: str, row: str, columns: dict[str, float | None]) -> None:
        """Add one round's values of a row's columns; None is left out."""
        cells = self.figures.setdefault(bench, {}).setdefault(row, {})
        for name, value in columns.items():
            if value is not None:
                cells.setdefault(name, []).append(value)

    def median(self, bench: str, row: str, column: str) -> float | None:
        """Return the median of a figure's rounds, or None if it was not measured."""
        values = self.figures.get(bench, {}).get(row, {}).get(column)
        return statistics.median(values) if values else None

    def note(self, bench: str, text: str) -> None:
        """Add a remark to be shown under the bench's table, once."""
        notes = self.notes.setdefault(bench, [])
        if text not in notes:
            notes.append(text)

    def at_most(self, bench: str, text: str, value: float | None, limit: float) -> None:
        """Hold a figure against an upper bound; what was not measured is left out."""
        if value is not None:
            self.targets.append(Target(bench, text, value, limit, at_most=True))

    def at_least(self, bench: str, text: str, value: float | None, limit: float) -> None:
        """Hold a figure against a lower bound; what was not measured is left out."""
        if value is not None:
            self.targets.append(Target(bench, text, value, limit, at_most=False))

    def columns(self, bench: str) -> list[str]:
        """Return the bench's columns in the order in which they came."""
        rows = self.figures.get(bench, {}).values()
        return list(dict.fromkeys(name for cells in rows for name in cells))

    def as_json(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "machine": machine,
            "benches": {bench: self._bench_as_json(bench) for bench in self.titles},
            "targets": [
                {**target.__dict__, "met": target.met, "at_most": target.at_most}
                for target in self.targets
            ],
        }

    def _bench_as_json(self, bench: str) -> dict[str, Any]:
        return {
            "title": self.titles[bench],
            "rows": {row: dict(self._cells(bench, row)) for row in self.figures.get(bench, {})},
            "notes": self.notes.get(bench, []),
        }

    def _cells(self, bench: str, row: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, values in self.figures[bench][row].items():
            yield name, {"median": statistics.median(values), "rounds": values}
