"""The page of a validation: it stands alone, says what was found, and runs nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recsys_core.errors import DataError
from recsys_core.layout import Layout
from tests.door_logs import card, clean_rows, ingested, run_validate
from tests.small_logs import DAY

EMPTY = {"meta", "rect", "br"}
"""Elements without an end."""

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; &amp; ' </code></td>",
]


class Page(HTMLParser):
    """A page's elements, their attributes and its texts; raises where ends do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"{self.open} never end"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(layout: Layout) -> tuple[str, Page]:
    text = layout.validation_page.read_text(encoding="utf-8")
    return text, Page(text)


def bars(text: str) -> list[tuple[int, int]]:
    """Valid and all rows of each bar of the chart."""
    found = re.findall(r"<title>[^:]*: ([\d,]+) valid of ([\d,]+)</title>", text)
    return [(int(went.replace(",", "")), int(came.replace(",", ""))) for went, came in found]


def hostile_rows() -> list[dict[str, Any]]:
    rows = clean_rows()
    for place, text in enumerate(HOSTILE):
        rows[place + 8]["os"] = text  # breaks the rule that an os begins with o
    return rows


def test_the_page_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    title = "A <b>log</b> & <script>more</script>"
    layout = ingested(tmp_path, hostile_rows(), card(title=title))
    run_validate(layout)
    text, page = page_of(layout)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "b", "i"}
    allowed |= {"table", "tr", "th", "td", "code", "span", "br", "svg", "g", "rect"}
    assert set(page.tags) <= allowed
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "action", "xlink:href"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in text
    assert "@import" not in text
    assert "//" not in text
    # what was hostile is there to be read, letter by letter
    assert title in page.texts
    assert [text for text in page.texts if text in HOSTILE] == HOSTILE


def test_what_hides_or_turns_text_is_spelled_out(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[9]["os"] = "x\u202eexe.\x00\nй"
    layout = ingested(tmp_path, rows, card())
    run_validate(layout)
    text, page = page_of(layout)
    assert "x\\u202eexe.\\u0000\\u000aй" in page.texts
    assert "\u202e" not in text


def test_it_says_what_came_in_and_what_went_on(tmp_path: Path) -> None:
    layout = ingested(tmp_path, hostile_rows(), card())
    run_validate(layout)
    text, page = page_of(layout)
    assert "The log passed." in page.texts
    tiles = re.findall(r"<b>([\d,]+)</b>([^<]+)</div>", text)
    assert tiles == [
        ("40", "rows came in"),
        ("37", "rows went on"),
        ("3", "rows in quarantine, 7.50&nbsp;%"),
        ("4", "users, of 4 that came in"),
        ("4", "items, of 4 that came in"),
    ]
    assert bars(text) == [(4, 4), (4, 4), (1, 4), *[(4, 4)] * 7]
    assert "Valid rows: 2023-11-15 00:00:00 to 2023-11-24 18:00:00 UTC." in page.texts
    assert "3 rows" in page.texts
    assert "width:7.50%" in text


def test_a_log_that_stops_the_run_says_why_on_its_page(tmp_path: Path) -> None:
    rows = [{**row, "user_id": None} for row in clean_rows()]
    layout = ingested(tmp_path, rows, card())
    with pytest.raises(DataError) as error:
        run_validate(layout)
    text, page = page_of(layout)
    assert f"The run stops here: {error.value}" in page.texts
    assert page.texts.count("no") >= 2
    assert bars(text) == [(0, 4)] * 10  # no day is valid: those that came in are shown


def test_times_that_no_day_is_near_do_not_stretch_the_chart(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[5]["timestamp"], rows[9]["timestamp"] = 0, None
    layout = ingested(tmp_path, rows, card())
    run_validate(layout)
    text, page = page_of(layout)
    assert bars(text) == [(4, 4), (3, 3), (3, 3), *[(4, 4)] * 7]
    assert "2 rows have no time, or one outside of these." in page.texts


def test_a_long_log_has_several_days_in_a_bar(tmp_path: Path) -> None:
    rows = clean_rows()
    for place, row in enumerate(rows):
        row["timestamp"] = place * 9 * DAY
    expected = {"bad_share": 0.0}
    layout = ingested(
        tmp_path, rows, card(time={"kind": "relative", "unit": "s"}, expected=expected)
    )
    run_validate(layout)
    text, page = page_of(layout)
    assert "Rows per 3 days" in page.texts
    assert bars(text) == [(1, 1), (0, 0), (0, 0)] * 39 + [(1, 1)]
    assert {"day 0", "day 351"} <= set(page.texts)
    assert "Valid rows: 351.0 days, counted from the log's start." in page.texts


def test_a_rank_has_no_days(tmp_path: Path) -> None:
    rows = clean_rows()
    for row in rows:
        row["timestamp"] = row["source_row"]
    expected = {"bad_share": 0.0}
    layout = ingested(tmp_path, rows, card(time={"kind": "rank", "unit": None}, expected=expected))
    run_validate(layout)
    text, page = page_of(layout)
    assert "svg" not in page.tags
    assert "Valid rows: ranks 0 to 39." in page.texts
    assert bars(text) == []
