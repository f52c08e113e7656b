"""Common style of all figures. matplotlib is imported inside functions because it is slow."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito palette, distinguishable with color blindness
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
REFERENCE_COLOR = "#3b3b3b"
DASHES = ("-", "--", "-.")
LOG_SCALE_RATIO = 30  # ratio of largest to smallest value above which an axis is logarithmic


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def style_axes(axes: Axes) -> None:
    """Hide the top and right spines and add a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def needs_log_scale(values: Sequence[float]) -> bool:
    """True if all values are positive and their ratio exceeds `LOG_SCALE_RATIO`."""
    return min(values) > 0 and max(values) > LOG_SCALE_RATIO * min(values)


def use_readable_log_scale(axes: Axes) -> None:
    """Make the y-axis logarithmic, with tick labels such as 20, 50, 100."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def escape(text: str) -> str:
    """Escape dollar signs, which matplotlib would interpret as math delimiters."""
    return text.replace("$", r"\$")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file with 128 colors, a quarter of the size of a full-color PNG."""
    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)
