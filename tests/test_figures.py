"""lib.figures: a style for every rule, told apart also without colour; labels; white faces."""

from __future__ import annotations

import re
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from lib import figures, rules


@pytest.fixture(autouse=True)
def untouched():
    """Every test leaves Matplotlib as it found it."""
    with mpl.rc_context():
        yield
    plt.close("all")


def test_every_rule_has_a_style():
    assert [name for name in rules.names() if name not in figures.STYLES] == []


@pytest.mark.parametrize(("one", "other"), list(combinations(figures.STYLES, 2)))
def test_two_rules_differ_in_colour_or_line(one, other):
    assert figures.STYLES[one] != figures.STYLES[other]


def test_styles_are_what_matplotlib_takes():
    _, ax = plt.subplots()
    for name in figures.STYLES:
        style = figures.style(name)
        assert set(style) == {"color", "linestyle"}
        assert re.fullmatch("#[0-9A-F]{6}", style["color"])
        (line,) = ax.plot([0, 1], [0, 1], **style)
        assert line.get_color() == style["color"]
    ax.figure.canvas.draw()


def test_colours_can_be_seen_on_white():
    """WCAG's contrast to white of 2 or more: enough for a line of 1.8 points."""
    for colour, _ in figures.STYLES.values():
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 2, colour


def test_an_unknown_rule_has_no_style_and_the_error_says_which_have():
    with pytest.raises(ValueError, match="no style for 'hebb'; there are backprop, kickback"):
        figures.style("hebb")


def test_use_gives_white_faces_even_after_a_dark_style():
    plt.style.use("dark_background")
    figures.use()
    fig, ax = plt.subplots()
    white = (1.0, 1.0, 1.0, 1.0)
    assert fig.get_facecolor() == white and ax.get_facecolor() == white
    assert mpl.rcParams["savefig.facecolor"] == "white"
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()


def test_an_end_label_stands_at_the_lines_end_in_its_colour():
    _, ax = plt.subplots()
    (line,) = ax.plot([0, 1, 4], [3.0, 2.0, 7.0], **figures.style("kickback"))
    figures.end_label(ax, line, "Kickback", dy=-3)
    (label,) = ax.texts
    assert label.get_text() == "Kickback"
    assert label.xy == (4.0, 7.0)
    assert label.get_position() == (5, -3)
    assert label.get_color() == figures.ink(figures.BLUE)
    assert not label.get_annotation_clip()


def test_an_end_label_lies_right_of_its_point():
    figures.use()
    fig, ax = plt.subplots()
    (line,) = ax.plot([0, 1], [0, 1])
    figures.end_label(ax, line, "rule")
    fig.canvas.draw()
    box, point = ax.texts[0].get_window_extent(), ax.transData.transform((1, 1))
    assert box.x0 > point[0] and box.y0 < point[1] < box.y1


@pytest.mark.parametrize("colour", ["#56B4E9", "#E69F00", "#000000", "#8A8A8A", "#0072B2"])
def test_ink_is_the_colour_made_readable_and_no_darker_than_needed(colour):
    """The contrast formula of WCAG 2, written a second time."""

    def luminance(rgb):
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    before = np.array(mpl.colors.to_rgb(colour))
    after = np.array(figures.ink(colour))
    assert 1.05 / (luminance(after) + 0.05) >= 4.5
    assert np.abs(np.cross(before, after)).max() < 1e-12
    if not np.array_equal(before, after):
        assert 1.05 / (luminance(np.minimum(after + 0.02 * before, 1)) + 0.05) < 4.5
