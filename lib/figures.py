"""The book's look: one colour and one line style per rule, the same in every chapter."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

# Okabe and Ito's colours, told apart under the common colour blindnesses; a family shares a
# colour and its members differ in line style.
BLACK, BLUE, SKY, ORANGE = "#000000", "#0072B2", "#56B4E9", "#E69F00"
RED, GREEN, PURPLE, GREY = "#D55E00", "#009E73", "#CC79A7", "#8A8A8A"

_SOLID, _DASH, _DOT, _DASHDOT = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))
_DASHDOTS = (0, (5, 2, 1, 2, 1, 2))
STYLES: dict[str, tuple[str, Any]] = {
    "backprop": (BLACK, _SOLID),
    "kickback": (BLUE, _SOLID),
    "coherent": (BLUE, _DASH),
    "feedback alignment": (ORANGE, _SOLID),
    "direct feedback": (ORANGE, _DASH),
    "sign symmetry": (ORANGE, _DOT),
    "kolen-pollack": (RED, _SOLID),
    "weight mirror": (RED, _DASH),
    "node perturbation": (GREEN, _SOLID),
    "weight perturbation": (GREEN, _DASH),
    "reinforce": (GREEN, _DOT),
    "bernoulli reinforce": (GREEN, (0, (2, 4))),
    "evolution": (GREEN, _DASHDOT),
    "global score": (GREEN, _DASHDOTS),
    "burstprop": (PURPLE, _SOLID),
    "burstccn": (PURPLE, _DASH),
    "predictive": (SKY, _SOLID),
    "right answer": (SKY, _DASH),
    "output only": (GREY, _DOT),
}


def use() -> None:
    """Set the book's style for every figure that follows: white face, open axes, clear type."""
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.6,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "font.family": "DejaVu Sans",
        }
    )


def style(rule: str) -> dict[str, Any]:
    """Keyword arguments (colour, line style) for a rule's line. ValueError for an unknown name."""
    if rule not in STYLES:
        raise ValueError(f"no style for {rule!r}; there are {', '.join(STYLES)}")
    colour, line = STYLES[rule]
    return {"color": colour, "linestyle": line}


def ink(colour: str) -> tuple[float, float, float]:
    """The colour, darkened just enough to be read as small text on white (contrast 4.5)."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    for shade in np.linspace(1, 0, 101):
        linear = np.where(
            shade * rgb <= 0.03928, shade * rgb / 12.92, ((shade * rgb + 0.055) / 1.055) ** 2.4
        )
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5:
            break
    return tuple(shade * rgb)


def end_label(ax: Axes, line: Line2D, text: str, *, dy: float = 0.0) -> None:
    """Write a line's name at its right end, in its colour; ``dy`` shifts it, in points."""
    x, y = line.get_xdata()[-1], line.get_ydata()[-1]
    ax.annotate(
        text,
        (float(x), float(y)),
        xytext=(5, dy),
        textcoords="offset points",
        color=ink(line.get_color()),
        va="center",
        fontsize=9,
        annotation_clip=False,
    )
