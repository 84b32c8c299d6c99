"""`python -m benchmarks.results`: writes docs/results.md from benchmarks/results/quality, and from
nothing else."""

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks.measure import RESULTS, ROOT
from benchmarks.row import Row, read_row, row_names
from recsys_core.artifacts import atomic_path, read_json

PAGE = ROOT / "docs" / "results.md"
TRAIN_ONLY = "_train_only"
OURS = "two_time_scale"

HEAD = """\
# Results

Written by `python -m benchmarks.results` from `benchmarks/results/quality/*.json`. One row anew:

```
make bench-quality ROW=gts-ml100k SEED=1   # where it is interrupted, the same line goes on
make bench-merge                           # all seeds that were run, and this page
```

Every target is ranked among the whole catalogue: rank = 1 + the other candidates with a score
greater than or equal to the target's. An item that was unknown when the period began is a miss; the
value on known targets stands beside. All choices (epochs, windows, neighbours, ridges) are made on
the validation period by the first metric; then everything is fitted again up to the test period.
A value is the mean over seeds, with a 95 % interval from a bootstrap over users; `difference` is
paired, this model minus the other on the same targets.

**ahead**: the whole interval of the difference lies above zero; **behind**: below; **level**:
neither.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page for the rows that were run, by name; the others are named at the end."""
    parts = [HEAD, _summary(results)]
    for name in row_names():
        if name in results:
            parts.append(_row(read_row(name), results[name]))
    missing = [name for name in row_names() if name not in results]
    if missing:
        parts.append("\n## Not measured yet\n\n" + ", ".join(f"`{n}`" for n in missing) + "\n")
    return "".join(parts)


def verdict(difference: Mapping[str, Any]) -> str:
    """A word for a paired difference.

    >>> verdict({"value": 0.1, "ci95": [0.05, 0.2]}), verdict({"value": 0.1, "ci95": [-0.05, 0.2]})
    ('ahead', 'level')
    """
    low, high = difference["ci95"]
    if low > 0:
        return "ahead"
    return "behind" if high < 0 else "level"


def _summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name in row_names():
        if name not in results:
            continue
        row, found = read_row(name), results[name]
        metric = row.metrics[0]
        best = max(
            (one for one in found["baselines"] if not one.endswith(TRAIN_ONLY)),
            key=lambda one: found["baselines"][one][metric]["value"],
        )
        word = verdict(found["differences"][best][metric])
        lines.append(
            [
                f"[{name}](#{name})",
                metric,
                _with_interval(found["metrics"][metric]),
                f"{best} {_short(found['baselines'][best][metric]['value'])}",
                f"**{word}**",
                _floor(row, found["metrics"][metric]["value"]),
            ]
        )
    if not lines:
        return ""
    headers = ["row", "first metric", "two time scales", "best baseline", "", "floor"]
    return "\n" + _markdown(headers, lines)


def _floor(row: Row, value: float) -> str:
    if row.floor is None:
        return "the required baselines"
    gap = value - float(row.floor["value"])
    word = "reached" if gap >= 0 else f"**missed** by {_short(-gap)}"
    return f"{_short(float(row.floor['value']))} ({row.floor['what']}): {word}"


def _row(row: Row, found: Mapping[str, Any]) -> str:
    population, metrics = found["population"], row.metrics
    targets = population["targets"]
    scales = population["two_time_scales"]
    lines = [_line(OURS, found["metrics"], found, metrics, required=False)]
    ordered = sorted(
        found["baselines"], key=lambda one: -found["baselines"][one][metrics[0]]["value"]
    )
    lines += [
        _line(one, found["baselines"][one], found, metrics, required=one in row.required)
        for one in ordered
    ]
    headers = ["model", *metrics, f"known targets: {metrics[0]}", f"difference {metrics[0]}", ""]
    facts = [
        f"- Asked for: {population['protocol']['targets']}. {targets['all']:,} targets, "
        f"{targets['known']:,} of known items, {targets['new_user']:,} of new users; "
        f"seen filter {'on' if found['params']['evaluate']['seen_filter'] else 'off'}.",
        f"- Seeds {', '.join(map(str, found['seeds']))}"
        + _spread(found["seed_spread"][metrics[0]], metrics[0])
        + f" {_seconds(found['seconds'])} on {found['device']}, {found['machine']['cpus']} CPUs of "
        f"{found['machine']['cpu']}; commit {found['commit'][:10]}"
        + (", with changes that were not committed." if found["changed_since"] else "."),
        *([f"- {row.note}"] if row.note else []),
    ]
    text = f"\n## {row.name}\n\n{row.title}.\n\n" + "\n".join(facts) + "\n\n"
    text += _markdown(headers, lines)
    return text + _cohorts(found, metrics[0], ordered, scales)


def _line(
    name: str,
    values: Mapping[str, Any],
    found: Mapping[str, Any],
    metrics: list[str],
    *,
    required: bool,
) -> list[str]:
    known = found["by_cohort"].get("known", {"metrics": {}})["metrics"].get(name)
    difference = found["differences"].get(name)
    shown = f"**{name}**" if name == OURS else name.replace(TRAIN_ONLY, ", train only")
    return [
        shown + (" (required)" if required else ""),
        *(_with_interval(values[metric]) for metric in metrics),
        "-" if known is None else _short(known[metrics[0]]["value"]),
        "" if difference is None else _with_interval(difference[metrics[0]], sign=True),
        "" if difference is None else verdict(difference[metrics[0]]),
    ]


def _cohorts(
    found: Mapping[str, Any], metric: str, ordered: list[str], scales: Mapping[str, Any]
) -> str:
    """The model and the three best baselines by cohort."""
    shown = [OURS, *(one for one in ordered if not one.endswith(TRAIN_ONLY))][:4]
    lines = [
        [
            cohort.replace("_", " "),
            f"{of['targets']:,}",
            *(_with_interval(of["metrics"][one][metric]) for one in shown),
        ]
        for cohort, of in found["by_cohort"].items()
    ]
    said = (
        ""
        if scales["both_at_least_a_tenth"]
        else f"\nActive users have {scales['active_share']:.1%} of the targets: fewer than a tenth "
        "on one side, so this row says nothing about two time scales.\n"
    )
    return f"\n{metric} by who is asked for:\n\n" + _markdown(["", "targets", *shown], lines) + said


def _spread(values: list[float], metric: str) -> str:
    if len(values) == 1:
        return ";"
    return f" ({metric} from {_short(min(values))} to {_short(max(values))});"


def _seconds(seconds: Mapping[str, Mapping[str, float]]) -> str:
    total = sum(sum(stages.values()) for stages in seconds.values())
    return f"{total:,.0f} seconds in all"


def _with_interval(value: Mapping[str, Any], *, sign: bool = False) -> str:
    form = "{:+.4f}" if sign else "{:.4f}"
    low, high = value["ci95"]
    return f"{form.format(value['value'])} [{form.format(low)}, {form.format(high)}]"


def _short(value: float) -> str:
    return f"{value:.4f}"


def _markdown(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    argparse.ArgumentParser(description="Write docs/results.md.").parse_args()
    folder = RESULTS / "quality"
    text = page({path.stem: read_json(path) for path in sorted(folder.glob("*.json"))})
    with atomic_path(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
