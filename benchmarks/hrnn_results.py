"""What an experiment found, as benchmarks/results/hrnn-<row>.json, and its part of docs/results.md.

Every experiment has the same form, so that the page knows none of them by name:

    protocol, title, note, first_metric of each table
    tables    log, title, population, seeds, facts by case, params, lower_is_better where it is
    cases     name, params, metrics {name: {value, ci95}}, against, difference of the first metric,
              without_request (metrics), numbers {name: value} without an interval
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.measure import RESULTS
from benchmarks.results_text import markdown, verdict, with_interval
from recsys_core.artifacts import read_json, write_json

Experiment = dict[str, Any]
Table = Mapping[str, Any]

PREFIX = "hrnn-"
HEAD = """
# HRNN-meta, one experiment after the other

Written from `benchmarks/results/hrnn-<row>.json`; one of them anew: `make bench-hrnn ROW=ablation
SEED=1`. A value is the mean over seeds with a 95 % interval from a bootstrap over users; a
difference is paired, the case minus the one that it stands against.
"""


def experiment_of(
    name: str, *, title: str, note: str, tables: Sequence[Mapping[str, Any]]
) -> Experiment:
    """The form that is written down and shown."""
    return {"protocol": name, "title": title, "note": note, "tables": list(tables)}


def write_experiment(found: Experiment) -> str:
    """Write what an experiment found; returns the file's name."""
    name = f"{PREFIX}{found['protocol']}.json"
    write_json(RESULTS / name, found)
    return name


def read_experiments() -> dict[str, Experiment]:
    """What was found, by experiment."""
    paths = sorted(RESULTS.glob(f"{PREFIX}*.json"))
    return {path.stem.removeprefix(PREFIX): read_json(path) for path in paths}


def experiments_page(experiments: Mapping[str, Experiment]) -> str:
    """The part of the page that tells of them; empty where none was run."""
    if not experiments:
        return ""
    return HEAD + "".join(_section(found) for _, found in sorted(experiments.items()))


def _section(found: Experiment) -> str:
    text = f"\n## hrnn-{found['protocol']}\n\n{found['title']}.\n\n{found['note']}\n"
    return text + "".join(_table(table) for table in found["tables"])


def _table(table: Table) -> str:
    metrics = list(table["cases"][0]["metrics"])
    numbers = list(dict.fromkeys(key for case in table["cases"] for key in case["numbers"]))
    compared = any(case["difference"] is not None for case in table["cases"])
    headers = ["", *metrics]
    if compared:
        headers += ["against", f"difference {table['first_metric']}", ""]
    lower = bool(table.get("lower_is_better"))
    lines = [
        line
        for case in table["cases"]
        for line in _lines(case, metrics, numbers, compared, lower=lower)
    ]
    said = "".join(f"- {line}\n" for line in _facts(table))
    return f"\n### {table['log']}\n\n{said}\n" + markdown([*headers, *numbers], lines)


def _lines(
    case: Mapping[str, Any],
    metrics: Sequence[str],
    numbers: Sequence[str],
    compared: bool,
    *,
    lower: bool,
) -> Iterator[list[str]]:
    """A case's line, and one more where it was also asked without the request's time."""
    yield [
        case["name"],
        *(_value(case["metrics"].get(metric)) for metric in metrics),
        *(_compared(case, lower=lower) if compared else []),
        *(_number(case["numbers"].get(number)) for number in numbers),
    ]
    if case["without_request"] is not None:
        told = [_value(case["without_request"].get(metric)) for metric in metrics]
        left = len(numbers) + (3 if compared else 0)
        yield [f"{case['name']}, without the request's time", *told, *[""] * left]


def _compared(case: Mapping[str, Any], *, lower: bool) -> list[str]:
    """What it stands against, the difference, and who is ahead: by `lower`, the lower one."""
    difference = case["difference"]
    if difference is None:
        return ["", "", ""]
    low, high = difference["ci95"]
    judged = {"ci95": [-high, -low]} if lower else difference
    return [case["against"], with_interval(difference, sign=True), verdict(judged)]


def _value(value: Mapping[str, Any] | None) -> str:
    """With an interval where there is one; a perplexity has few decimals."""
    if value is None:
        return "-"
    if value["ci95"] is None:
        return _number(value["value"])
    if value["value"] >= 2.0:
        low, high = value["ci95"]
        return f"{value['value']:,.1f} [{low:,.1f}, {high:,.1f}]"
    return with_interval(value)


def _number(value: float | str | None) -> str:
    """
    >>> _number(1234567.0), _number(0.1234567), _number(12.34), _number(None)
    ('1,234,567', '0.1235', '12.3', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) < 2 else f"{value:,.1f}"


def _facts(table: Table) -> Iterator[str]:
    yield f"{table['title']}. Asked for: {table['asked']}; {table['population']}."
    seeds = table["seeds"]
    runs = [one for of in table["facts"].values() for one in of]
    machines = dict.fromkeys(
        f"{one['machine']['cpus']} CPUs of {one['machine']['cpu']}" for one in runs
    )
    commits = dict.fromkeys(one["commit"][:10] for one in runs)
    changed = any(one["changed_since"] for one in runs)
    yield (
        f"{'Seeds' if len(seeds) > 1 else 'One seed,'} {', '.join(map(str, seeds))}; "
        f"on {' and '.join(dict.fromkeys(o['device'] for o in runs))}"
        f", {' and '.join(machines)}; commit {' and '.join(commits)}"
        + (", with changes that were not committed." if changed else ".")
    )
