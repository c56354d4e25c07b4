"""Colours, stacks and small numbers of the report."""

from __future__ import annotations

import re

import pytest

from magicbert.report.palette import FAMILIES, OTHER, operator_colours, text_on
from magicbert.report.plots import short_count, smooth
from magicbert.report.stacks import stacks, strip
from magicbert.report.tables import Mark, table


def contrast(first: str, second: str) -> float:
    """WCAG 2.1 contrast ratio."""
    values = []
    for colour in (first, second):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        values.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(values) + 0.05) / (min(values) + 0.05)


def test_families_share_a_hue_and_members_differ():
    colours = operator_colours(["conv15", "conv3", "mha6", "ffn", "mha12", "conv3", "nothing"])
    assert colours["conv3"], colours["conv15"] == FAMILIES["conv"][:2]
    assert (colours["mha6"], colours["mha12"]) == FAMILIES["mha"][:2]
    assert colours["nothing"] == OTHER[0]
    assert len(set(colours.values())) == len(colours)


@pytest.mark.parametrize("colour", [c for shades in (*FAMILIES.values(), OTHER) for c in shades])
def test_names_on_blocks_are_legible(colour):
    assert contrast(text_on(colour), colour) >= 3.0


def test_first_layer_stands_at_the_bottom():
    rows = [{"architecture": "mha4-ffn-conv3", "loss": 5.0, "parameters": 1200}]
    drawing = stacks(rows, ["1"])
    tops = dict(re.findall(r'<title>(\w+)</title><rect x="[^"]+" y="([^"]+)"', drawing))
    assert float(tops["mha4"]) > float(tops["ffn"]) > float(tops["conv3"])


def test_long_names_shrink_and_vanish_before_they_overflow():
    wide = strip("-".join(["conv3x3072"] * 4))
    narrow = strip("-".join(["conv3x3072"] * 60))
    assert wide.count(">conv3x3072</text>") == 4
    assert narrow.count(">conv3x3072</text>") == 0
    assert narrow.count("<title>conv3x3072</title>") == 60


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1_450_000, "1.45M"), (2.5e9, "2.5G"), (3e12, "3T")],
)
def test_short_counts(value, text):
    assert short_count(value) == text


def test_smoothing_keeps_a_constant_and_flattens_noise():
    assert smooth([2.0] * 50) == [2.0] * 50
    zigzag = smooth([0.0, 1.0] * 100)
    assert len(zigzag) == 200
    assert max(zigzag[20:-20]) - min(zigzag[20:-20]) < 0.1
    assert smooth([]) == []


def test_table_aligns_numbers_and_escapes_text():
    text = table(("a<b", "n"), [["<b>", 1234567], ["x", None], ["y", Mark("<i>3</i>")]])
    assert "<th>a&lt;b</th>" in text
    assert "<td>&lt;b&gt;</td>" in text
    assert text.count('class="number"') == 4
    assert "1,234,567" in text
    assert "<i>3</i>" in text
