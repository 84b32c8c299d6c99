"""The picture of a backtest: read back as XML, its points where the numbers say."""

import re
from xml.etree import ElementTree

import pytest

from tasks.curve_picture import BOTTOM, HEIGHT, TOP, curve_picture
from tests.event_rows import HOUR

SVG = "{http://www.w3.org/2000/svg}"
STARTS = [HOUR * hour for hour in range(6)]
FLAT = [(frame, 0.2, 0.15, 0.25) for frame in range(5)]
RISING = [(frame, 0.1 * frame, 0.1 * frame, 0.1 * frame) for frame in (0, 1, 3, 4)]


def drawn(kind: str = "absolute") -> ElementTree.Element:
    lines = {"offline": FLAT, "offline_trend": RISING, "recent_popularity": FLAT}
    return ElementTree.fromstring(curve_picture(lines, STARTS, metric="mrr@20", kind=kind))


def heights(points: str) -> list[float]:
    return [float(point.split(",")[1]) for point in points.split()]


def test_points_lie_where_the_numbers_say() -> None:
    svg = drawn()
    lines = [line for line in svg.iter(f"{SVG}polyline")]
    # one, two on both sides of the frame that is missing, one
    assert [len(line.attrib["points"].split()) for line in lines] == [5, 2, 2, 5]
    ticks = {
        float(text.text or ""): float(text.attrib["y"])
        for text in svg.iter(f"{SVG}text")
        if text.attrib.get("text-anchor") == "end"
    }
    zero, highest = ticks[0.0], max(ticks)
    assert zero == HEIGHT - BOTTOM
    assert highest >= 0.4
    assert min(ticks.values()) == pytest.approx(TOP)
    per_unit = (zero - ticks[highest]) / highest
    assert heights(lines[0].attrib["points"]) == pytest.approx([zero - 0.2 * per_unit] * 5, abs=0.1)
    found = heights(lines[1].attrib["points"]) + heights(lines[2].attrib["points"])
    expected = [zero - value * per_unit for value in (0.0, 0.1, 0.3, 0.4)]
    assert found == pytest.approx(expected, abs=0.1)


def test_what_is_not_refreshed_is_dashed_beside_what_is() -> None:
    dashed = ["stroke-dasharray" in line.attrib for line in drawn().iter(f"{SVG}polyline")]
    assert dashed == [True, False, False, False]


def test_times_are_those_of_the_log() -> None:
    texts = [text.text for text in drawn().iter(f"{SVG}text")]
    assert "01-01 03:00" in texts
    assert {"offline", "offline trend", "recent popularity"} <= set(texts)
    relative = [text.text for text in drawn("relative").iter(f"{SVG}text")]
    assert "+3 h" in relative
    assert not any("01-01" in (text or "") for text in relative)


@pytest.mark.parametrize("highest", [0.0, 3e-5, 0.013, 0.2, 0.5137, 1.0])
def test_any_height_has_a_few_round_ticks_and_nothing_is_cut(highest: float) -> None:
    lines = {"offline": [(0, highest / 2, 0.0, highest)]}
    text = curve_picture(lines, STARTS[:2], metric="mrr", kind="absolute")
    svg = ElementTree.fromstring(text)
    ticks = [text for text in svg.iter(f"{SVG}text") if text.attrib.get("text-anchor") == "end"]
    assert 2 <= len(ticks) <= 8
    assert max(float(tick.text or "") for tick in ticks) >= highest
    for polygon in svg.iter(f"{SVG}polygon"):
        assert min(heights(polygon.attrib["points"])) >= TOP - 0.1
    assert not re.search(r"\b(nan|inf)\b", text)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = curve_picture({"offline": FLAT}, STARTS, metric="mrr", kind="absolute")
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in text
