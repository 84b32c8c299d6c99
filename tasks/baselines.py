"""The baselines that evaluation ranks, and what is chosen of them on the validation targets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from recsys_core.data.cuts import Cuts
from recsys_core.data.events import Events
from recsys_core.evaluation.baselines import (
    FROZEN,
    STREAMED,
    Choice,
    choose_settings,
    label,
)
from recsys_core.evaluation.scorers import history_scorer
from recsys_core.models.history_model import HistoryModel
from recsys_core.models.requests import known_events
from recsys_core.sections import BaselineName, Evaluate
from tasks.cuts import validation_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Baselines that know alike: those that are ranked, what is chosen of each and of what it
    needs, and what their names end with."""

    ranked: tuple[BaselineName, ...]
    streaming: bool
    chosen: dict[BaselineName, Choice]
    ending: str


def choose_groups(
    events: Events,
    cuts: Cuts,
    evaluate: Evaluate,
    *,
    timed: bool,
    first_metric: str,
    seed: int,
) -> list[Group]:
    """What is chosen of the baselines, on the validation targets of the training stages, those of
    no reward included: one group of all, or where evaluation streams those that do and the rest.

    Without windows nothing is recent, so recent popularity is not ranked then.
    """
    validation = validation_of(
        events, cuts.validation_period, evaluate=evaluate, metric_name=first_metric, seed=seed
    )
    known = known_events(events, cuts.valid.n_items)

    def value(model: HistoryModel) -> float:
        scorer = history_scorer(model, known, validation.targets, likelihood=False)
        return validation.metric_of_scorer(scorer)

    found = []
    for names, streaming, ending in _parts(evaluate):
        chosen = choose_settings(
            names,
            events,
            cuts.valid,
            hours=evaluate.windows,
            timed=timed,
            streaming=streaming,
            value=value,
        )
        for name, choice in chosen.items():
            setting = label(choice.setting)
            logger.info("event=chosen baseline=%s%s setting=%r", name, ending, setting)
        found.append(Group(names, streaming, chosen, ending))
    return found


def named(groups: Sequence[Group]) -> dict[str, Choice]:
    """Every choice by the name of its baseline among ranks."""
    return {
        f"{name}{group.ending}": choice for group in groups for name, choice in group.chosen.items()
    }


def _parts(evaluate: Evaluate) -> list[tuple[tuple[BaselineName, ...], bool, str]]:
    """Names, whether they stream, and what their names end with."""
    names = tuple(
        name for name in evaluate.baselines if name != "recent_popularity" or evaluate.windows
    )
    if not evaluate.streaming:
        return [(names, False, "")]
    streamed = tuple(name for name in names if name in STREAMED)
    frozen = tuple(name for name in names if name not in STREAMED)
    return [(streamed, True, ""), *([(frozen, False, FROZEN)] if frozen else [])]
