"""Draw the two stages, and the layers that the GAN takes from the VAE, in docs/model.png.

python scripts/draw_model.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OUTPUT = Path(__file__).parents[1] / "docs" / "model.png"
VAE_ROW, GAN_ROW = 1.9, 0.0
NETWORK, VARIABLE, DISTRIBUTION = "#cfe0f5", "#ffffff", "#fbe6c8"
HALF_HEIGHT = 0.34


def box(axes: Axes, x: float, y: float, text: str, color: str, width: float = 1.3) -> None:
    """Draw a box with a label, centered at (x, y)."""
    corner = (x - width / 2, y - HALF_HEIGHT)
    style = {"facecolor": color, "edgecolor": "#30435c", "linewidth": 1.2}
    axes.add_patch(plt.Rectangle(corner, width, 2 * HALF_HEIGHT, **style))
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """Draw an arrow; one with a text is a copy of weights."""
    color, style = ("#b03a2e", "--") if text else ("#30435c", "-")
    properties = {"arrowstyle": "-|>", "color": color, "linestyle": style, "linewidth": 1.4}
    axes.annotate("", xy=end, xytext=start, arrowprops=properties)
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x + 0.1, y, text, color=color, fontsize=9.5, ha="left", va="center")


def row(axes: Axes, y: float, boxes: list[tuple[float, str, str, float]]) -> None:
    """Draw boxes from left to right, joined by arrows."""
    for x, text, color, width in boxes:
        box(axes, x, y, text, color, width)
    for left, right in zip(boxes[:-1], boxes[1:], strict=True):
        arrow(axes, (left[0] + left[3] / 2, y), (right[0] - right[3] / 2, y))


def main() -> None:
    """Draw the figure."""
    figure, axes = plt.subplots(figsize=(11, 3.6))
    row(
        axes,
        VAE_ROW,
        [
            (0.7, "image $x$", VARIABLE, 1.2),
            (2.6, "encoder", NETWORK, 1.4),
            (4.5, r"$q(z\,|\,x)$", DISTRIBUTION, 1.3),
            (6.1, "$z$", VARIABLE, 0.7),
            (7.8, "decoder", NETWORK, 1.4),
            (9.9, r"$p(x\,|\,z)$", DISTRIBUTION, 1.5),
        ],
    )
    row(
        axes,
        GAN_ROW,
        [
            (4.5, "prior $p(z)$", DISTRIBUTION, 1.3),
            (6.1, "$z$", VARIABLE, 0.7),
            (7.8, "generator", NETWORK, 1.4),
            (9.9, r"$E[x\,|\,z]$", VARIABLE, 1.5),
        ],
    )
    row(
        axes,
        GAN_ROW,
        [(0.7, "real or fake", VARIABLE, 1.2), (2.6, "discriminator", NETWORK, 1.5)],
    )
    arrow(
        axes, (2.6, VAE_ROW - HALF_HEIGHT), (2.6, GAN_ROW + HALF_HEIGHT), "all layers but the last"
    )
    arrow(axes, (7.8, VAE_ROW - HALF_HEIGHT), (7.8, GAN_ROW + HALF_HEIGHT), "all layers")
    axes.text(-0.15, VAE_ROW + 0.65, "Stage 1: VAE, maximizes the ELBO", fontsize=11, weight="bold")
    axes.text(
        -0.15, GAN_ROW - 0.75, "Stage 2: GAN, starts from the VAE", fontsize=11, weight="bold"
    )
    axes.set_xlim(-0.2, 10.9)
    axes.set_ylim(-0.9, 2.9)
    axes.axis("off")
    figure.savefig(OUTPUT, dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
