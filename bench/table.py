"""The results as text for a terminal: a table for each bench, and its targets beneath."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from bench.results import Results, Target


def table(results: Results, bench: str) -> str:
    """Return a bench's table, notes and targets."""
    lines = [f"{bench}: {results.titles[bench]}", ""]
    lines += _grid(results, bench)
    lines += [f"  note: {note}" for note in results.notes.get(bench, [])]
    lines += [_target(target) for target in results.targets if target.bench == bench]
    return "\n".join(lines) + "\n"


def shown(value: float) -> str:
    """Return a figure with three digits or so."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _grid(results: Results, bench: str) -> Iterator[str]:
    columns = results.columns(bench)
    rows = results.figures.get(bench, {})
    cells = [[row, *(_cell(results, bench, row, name) for name in columns)] for row in rows]
    names = ["", *(name.partition(": ")[2] or name for name in columns)]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    if any(": " in name for name in columns):
        yield _over(columns, widths)
    yield _line(names, widths)
    for line in cells:
        yield _line(line, widths)
    yield ""


def _cell(results: Results, bench: str, row: str, column: str) -> str:
    value = results.median(bench, row, column)
    return "" if value is None else shown(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "   ".join([f"  {cells[0].ljust(widths[0])}", *rest]).rstrip()


def _over(columns: Sequence[str], widths: list[int]) -> str:
    """Return the line above the names: what several columns that stand together belong to.

    The last column of a group is widened where its heading would not fit.
    """
    parts = ["  " + " " * widths[0]]
    last = 0
    for heading, group in groupby(
        name.partition(": ")[0] if ": " in name else "" for name in columns
    ):
        first, last = last + 1, last + len(list(group))
        width = sum(widths[first : last + 1]) + 3 * (last - first)
        if len(heading) > width:
            widths[last] += len(heading) - width
            width = len(heading)
        parts.append(heading.rjust(width))
    return "   ".join(parts).rstrip()


def _target(target: Target) -> str:
    word = "at most" if target.at_most else "at least"
    verdict = "met    " if target.met else "NOT MET"
    return f"  {verdict}  {target.text}: {shown(target.value)} ({word} {target.limit:g})"
