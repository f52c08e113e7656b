"""Format tables as Markdown, CSV and terminal text."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console


def format_number(value: float) -> str:
    """Format with 3 significant digits; numbers from 1,000 to 1e6 as integers, not exponents."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def markdown_table(
    names: Sequence[str], rows: Iterable[Sequence[str]], right_aligned: Collection[str] = ()
) -> list[str]:
    """Return the lines of a Markdown table with the given column names."""
    rules = ["---:" if name in right_aligned else "---" for name in names]
    lines = []
    for cells in (names, rules, *rows):
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return lines


def text_table(
    names: Sequence[str], rows: Iterable[Sequence[str]], right_aligned: Collection[str] = ()
) -> list[str]:
    """Return the lines of a table with aligned columns, for the terminal."""
    lines = [names, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    signs = [">" if name in right_aligned else "<" for name in names]
    table = []
    for cells in lines:
        columns = zip(cells, signs, widths, strict=True)
        padded = [f"{cell:{sign}{width}}" for cell, sign, width in columns]
        table.append("  ".join(padded).rstrip())
    return table


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def print_lines(*lines: str) -> None:
    """Print lines without markup or wrapping, so that long paths can be copied."""
    Console(soft_wrap=True, highlight=False, markup=False).print(*lines, sep="\n")


def replace_non_finite(value: Any) -> Any:
    """Replace infinity and NaN, which JSON does not support, with None in plain data."""
    if isinstance(value, dict):
        return {key: replace_non_finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
