"""One row's section of the page of results."""

from collections.abc import Mapping
from typing import Any

from benchmarks.results_text import (
    SETTING_WORDS,
    markdown,
    of_setting,
    short,
    verdict,
    with_interval,
)
from benchmarks.row import SETTINGS

OURS = "two_time_scale"
BESIDE = 3
"""Baselines that stand beside the model in the table of cohorts."""

Found = Mapping[str, Any]


def section(found: Found) -> str:
    """What is asked for; the models of each setting; cohorts, activity, and what was changed."""
    row = found["row"]
    text = f"\n## {found['protocol']}\n\n{row['title']}.\n\n" + _facts(found)
    settings = [setting for setting in SETTINGS if of_setting(found, setting) is not None]
    for setting in settings:
        if len(settings) > 1:
            text += f"\n{SETTING_WORDS[setting].capitalize()}:\n"
        text += "\n" + _models(of_setting(found, setting), row)
    return text + _cohorts(found) + _by_history(found) + _ablations(found) + _variants(found)


def _facts(found: Found) -> str:
    row, population = found["row"], found["population"]
    metric, targets = row["metrics"][0], population["targets"]
    seeds, spread = found["seeds"], found["seed_spread"][metric]
    apart = f" ({metric} from {short(min(spread))} to {short(max(spread))})"
    total = sum(sum(stages.values()) for stages in found["seconds"].values())
    machines = dict.fromkeys(
        f"{one['cpus']} CPUs of {one['cpu']}" for one in found["machine"].values()
    )
    lines = [
        f"Asked for: {population['protocol']['targets']}. {targets['all']:,} targets, "
        f"{targets['known']:,} of known items, {targets['new_user']:,} of new users; seen filter "
        f"{'on' if found['params']['evaluate']['seen_filter'] else 'off'}.",
        f"{'Seeds' if len(seeds) > 1 else 'One seed,'} {', '.join(map(str, seeds))}"
        f"{apart if len(seeds) > 1 else ''}; {total:,.0f} seconds (of a stage that "
        f"was interrupted, its last start alone) on {found['device']}, "
        f"{' and '.join(machines)}; commit {found['commit'][:10]}"
        + (", with changes that were not committed." if found["changed_since"] else "."),
        *([row["note"]] if row["note"] else []),
    ]
    return "".join(f"- {line}\n" for line in lines)


def _models(of: Found, row: Found) -> str:
    """The model, the baselines from the best to the last, and the model's parts."""
    metrics = row["metrics"]
    known = of["by_cohort"].get("known", {"metrics": {}})["metrics"]

    def line(name: str, values: Found, *, shown: str, word: bool) -> list[str]:
        difference = of["differences"].get(name)
        return [
            shown,
            *(with_interval(values[metric]) for metric in metrics),
            short(known[name][metrics[0]]["value"]) if name in known else "-",
            "" if difference is None else with_interval(difference[metrics[0]], sign=True),
            verdict(difference[metrics[0]]) if word and difference is not None else "",
        ]

    lines = [line(OURS, of["metrics"], shown=f"**{OURS}**", word=False)]
    for name in _best_first(of, metrics[0]):
        shown = f"{name} (required)" if name in row["required"] else name
        lines.append(line(name, of["baselines"][name], shown=shown, word=True))
    for name, values in of["parts"].items():
        lines.append(line(name, values, shown=f"part: {name}", word=False))
    headers = ["model", *metrics, f"known targets: {metrics[0]}", f"difference {metrics[0]}", ""]
    return markdown(headers, lines)


def _best_first(of: Found, metric: str) -> list[str]:
    return sorted(of["baselines"], key=lambda name: -of["baselines"][name][metric]["value"])


def _cohorts(found: Found) -> str:
    """The model, its parts and the best baselines by cohort."""
    metric, scales = found["row"]["metrics"][0], found["population"]["two_time_scales"]
    shown = [OURS, *found["parts"], *_best_first(found, metric)[:BESIDE]]
    said = (
        f"\nActive users (at least {found['t_star']} events) have {scales['active_share']:.1%} of "
        "the targets"
    )
    said += (
        ".\n"
        if scales["both_at_least_a_tenth"]
        else ": fewer than a tenth on one side, so this row says nothing about two time scales.\n"
    )
    return (
        f"\n{metric} by who is asked for:\n\n" + _groups(found["by_cohort"], shown, metric) + said
    )


def _by_history(found: Found) -> str:
    """The model, its parts and the best baseline by how much is known of the user."""
    metric = found["row"]["metrics"][0]
    shown = [OURS, *found["parts"], found["best_baseline"]]
    title = f"\n{metric} by the known events of the user before the target:\n\n"
    # JSON has its keys in the order of letters: "100+" comes before "20-49"
    groups = dict(sorted(found["by_history"].items(), key=lambda group: _first(group[0])))
    return title + _groups(groups, shown, metric)


def _first(bucket: str) -> int:
    """The shortest history of "0", "1-2" or "100+"."""
    return int(bucket.partition("-")[0].rstrip("+"))


def _groups(groups: Found, shown: list[str], metric: str) -> str:
    lines = [
        [
            group.replace("_", " "),
            f"{of['targets']:,}",
            *(with_interval(of["metrics"][name][metric]) for name in shown),
        ]
        for group, of in groups.items()
    ]
    return markdown(["", "targets", *shown], lines)


def _ablations(found: Found) -> str:
    """What the whole model has more than one with a part taken away."""
    if not found["ablations"]:
        return ""
    metric = found["row"]["metrics"][0]
    groups = ["all", *(name for name in ("active", "inactive") if name in found["by_cohort"])]
    lines = []
    for name, of in found["ablations"].items():
        for model, differences in of["differences"].items():
            cells = [
                f"{with_interval(differences[group][metric], sign=True)} "
                f"{verdict(differences[group][metric])}"
                for group in groups
            ]
            seeds = ", ".join(map(str, of["seeds"]))
            value = short(of["metrics"][model]["all"][metric]["value"])
            lines.append([name, model, seeds, value, *cells])
    headers = ["ablation", "", "seeds", metric, *(f"difference: {group}" for group in groups)]
    return (
        "\nThe model minus the same with a part taken away (`models/ablations.py`; "
        "inductive: one network, and no factors in the memory), paired on the same seeds:\n\n"
        + markdown(headers, lines)
    )


def _variants(found: Found) -> str:
    """The same trained model, asked otherwise."""
    text = ""
    for name, of in found["variants"].items():
        changes = ", ".join(f"{key} {value}" for key, value in of["changes"]["evaluate"].items())
        text += (
            f"\n{name.replace('_', ' ').capitalize()} (`evaluate`: {changes}; the model is the one "
            "above, the baselines' settings are chosen anew):\n\n" + _models(of, found["row"])
        )
    return text
