"""Items are shown by what names them: the title, another text, or the id."""

from pathlib import Path

import pytest

from tasks.lookup import read_history
from tests.small_logs import params_for, run_stages, small_log, workspace


@pytest.mark.parametrize(
    ("header", "features", "shown"),
    [
        ("item,about,title", {"about": "text", "title": "text"}, ["T0", "i1"]),
        ("item,about,brand", {"about": "text", "brand": "categorical"}, ["A0", "i1"]),
        ("item,about,title", {"about": "categorical", "title": "categorical"}, ["i0", "i1"]),
    ],
)
def test_an_item_is_shown_by_its_title_or_another_text_or_its_id(
    tmp_path: Path, header: str, features: dict[str, str], shown: list[str]
) -> None:
    source = {"kind": "files", "interactions": "log.parquet", "items": "items.csv", "users": None}
    layout = workspace(tmp_path, small_log(40), source=source, item_features=features)
    text = f"{header}\ni0,A0,T0\ni1,,\n"
    (tmp_path / "data" / "items.csv").write_text(text, encoding="utf-8")
    params = params_for("small", "data", split={"kind": "quantile", "share": 0.2})
    run_stages(layout, "ingest", "validate", "sessionize", params=params)
    history = read_history(layout, "u0", last=40)
    assert [event.title for event in history][:3] == [shown[0], "i2", shown[1]]
