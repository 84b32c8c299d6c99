"""`python -m benchmarks.results`: writes docs/results.md from benchmarks/results/<protocol>.json
and hrnn-<experiment>.json, and from nothing else; its first table stands in the README too."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.hrnn_results import experiments_page, read_experiments
from benchmarks.measure import RESULTS, ROOT
from benchmarks.results_row import section
from benchmarks.results_text import (
    SETTING_WORDS,
    markdown,
    of_setting,
    short,
    verdict,
    with_interval,
)
from benchmarks.row import SETTINGS, row_names
from recsys_core.artifacts import atomic_path, read_json

PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
"""What lies between them in the README is written here."""
NETWORKS = "networks"
SEEDS = 3
"""Of anything trained; a row with fewer is marked."""

HEAD = """\
# Results

Written by `python -m benchmarks.results` from `benchmarks/results/<protocol>.json`. One row anew:

```
make bench-quality ROW=gts-ml100k SEED=1   # where it is interrupted, the same line goes on
make bench-merge                           # all seeds that were run, and this page
```

Every target is ranked among the whole catalogue: rank = 1 + the other candidates with a score
greater than or equal to the target's. An item that was unknown when the period began is a miss; the
value on known targets stands beside. A value is the mean over seeds, with a 95 % interval from a
bootstrap over users; `difference` is paired, this model minus the other on the same targets.

What is chosen, and on what:

- epochs, windows, neighbours, ridges, factors: on the validation period, by the first metric;
- the memory beside the networks: its few hundred numbers are *fitted* on targets of the validation
  period, in both settings. They are few, but they have seen what a table that trains on nothing
  after the validation cut has not: `networks` is the model without the memory, and in the setting
  train only it is the line to compare with such tables;
- setting **refit**: with all this chosen, networks, tables and baselines are fitted again up to the
  test period; setting **train only**: they stay as they were when the validation period began. Each
  is compared with the others of its own setting;
- the design itself, and which settings a row has: on validation too, but not untouched by the test
  periods. Earlier designs had been read on those of `basket-retail`, `day-globo`, `gts-beauty`,
  `gts-ml100k`, `gts-yelp` and `jodie-wikipedia` with seed 1, were behind, and were changed for that
  reason; `day-globo` twice, and `session-globo` has its settings and asks for a part of the same
  clicks. What these rows say is that much less than a first reading would. Each
  row names the commit that it was run at: a row whose settings were changed since stands here as it
  was until it is run again.

**ahead**: the whole interval of the difference lies above zero; **behind**: below; **level**:
neither. Parts of our own model are shown, and are no baselines. The last column asks whether the
model is ahead of every required baseline of the row, and reaches the floor where there is one.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for the rows that were run, by name; the others are named at the end."""
    names = [name for name in row_names() if name in results]
    parts = [HEAD]
    if names:
        parts.append("\n" + summary(results))
    parts += [section(results[name]) for name in names]
    missing = [name for name in row_names() if name not in results]
    if missing:
        parts.append("\n## Not measured yet\n\n" + ", ".join(f"`{n}`" for n in missing) + "\n")
    return "".join(parts)


def summary(results: Mapping[str, Mapping[str, Any]], *, file: str = "") -> str:
    """A line for each row and setting, which leads to the row's section of `file`, the page's own
    where it is empty."""
    names = [name for name in row_names() if name in results]
    headers = [
        "row",
        "setting",
        "first metric",
        "two time scales",
        "best baseline",
        "",
        "floor",
        "ahead of all required",
    ]
    lines = [line for name in names for line in _lines(results[name], file=file)]
    few = [name for name in names if len(results[name]["seeds"]) < SEEDS]
    if not few:
        return markdown(headers, lines)
    said = ", ".join(f"`{name}` has {len(results[name]['seeds'])}" for name in few)
    return markdown(headers, lines) + f"\n\\* fewer than {SEEDS} seeds: {said}.\n"


def with_summary(readme: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The README with the table as it is now, between its marks."""
    begin, end = MARKS
    for mark in MARKS:
        assert readme.count(mark) == 1, f"the README has {mark!r} once"
    before, _, rest = readme.partition(begin)
    after = rest.partition(end)[2]
    return before + begin + summary(results, file="docs/results.md") + end + after


def not_ahead(found: Mapping[str, Any], setting: str) -> list[str]:
    """Which required baselines the model is not ahead of, and `the floor` where it is missed."""
    row, of = found["row"], of_setting(found, setting)
    metric = row["metrics"][0]
    behind = [
        name for name in row["required"] if verdict(of["differences"][name][metric]) != "ahead"
    ]
    floor = (row["floor"] or {}).get(setting)
    if floor is not None and of["metrics"][metric]["value"] < floor["value"]:
        behind.append("the floor")
    return behind


def _lines(found: Mapping[str, Any], *, file: str) -> Iterator[list[str]]:
    """A row's lines of the first table, one for each setting."""
    name, metric = found["protocol"], found["row"]["metrics"][0]
    mark = "" if len(found["seeds"]) >= SEEDS else " \\*"
    for setting in SETTINGS:
        of = of_setting(found, setting)
        if of is None:
            continue
        best = of["best_baseline"]
        behind = not_ahead(found, setting)
        yield [
            f"[{name}]({file}#{name}){mark}",
            SETTING_WORDS[setting],
            metric,
            with_interval(of["metrics"][metric]),
            f"{best} {short(of['baselines'][best][metric]['value'])}",
            f"**{verdict(of['differences'][best][metric])}**",
            _floor(found, setting),
            f"no: {', '.join(behind)}" if behind else "yes",
        ]


def _floor(found: Mapping[str, Any], setting: str) -> str:
    """The floor of a setting, and whether it is reached; train only by the networks alone too,
    which learn from nothing of the validation period."""
    row, of = found["row"], of_setting(found, setting)
    floor = (row["floor"] or {}).get(setting)
    if floor is None:
        return "the required baselines"
    metric = row["metrics"][0]
    gap = of["metrics"][metric]["value"] - floor["value"]
    word = "reached" if gap >= 0 else f"**missed** by {short(-gap)}"
    text = f"{short(floor['value'])} ({floor['what']}): {word}"
    if setting == "train_only" and NETWORKS in of["parts"]:
        text += f"; networks {short(of['parts'][NETWORKS][metric]['value'])}"
    return text


def read_results() -> dict[str, Any]:
    """What was found, by row."""
    paths = {name: RESULTS / f"{name}.json" for name in row_names()}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def whole_page() -> str:
    """The page of the committed results: the rows, and behind them the experiments."""
    return page(read_results()) + experiments_page(read_experiments())


def write_page() -> None:
    """Write the page, and its first table into the README."""
    readme = with_summary(README.read_text(encoding="utf-8"), read_results())
    for path, text in ((PAGE, whole_page()), (README, readme)):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


def main() -> None:
    argparse.ArgumentParser(description="Write docs/results.md, and its first table.").parse_args()
    write_page()


if __name__ == "__main__":
    main()
