"""What scoring asks for and the card does not declare is refused before anything is trained."""

from dataclasses import replace

import pytest

from recsys_core.config import read_params
from recsys_core.data.cards import read_card
from recsys_core.errors import ConfigError
from recsys_core.sections import Score
from recsys_core.sections_of_scoring import Available, Candidates, Cold, Segments
from tasks.check_scoring import check_scoring
from tests.conftest import CHECKOUT

SCORE: Score = read_params(CHECKOUT / "params.yaml").score
CARD = read_card(CHECKOUT / "datasets" / "simulator.yaml")
KINDS = {name: one.kind for name, one in CARD.item_features.items()}
CATEGORY = next(name for name, kind in KINDS.items() if kind == "categorical")
USERS = next(name for name, one in CARD.user_features.items() if one.kind == "categorical")


def test_the_projects_own_parameters_and_what_the_card_declares_are_taken() -> None:
    check_scoring(SCORE, CARD)
    filters = replace(
        SCORE.filters,
        rules=(f"{CATEGORY} != 'x'", "item_id <> ''"),
        segments=Segments(USERS, {"a": Candidates(rules=(f"{CATEGORY} = 'y'",))}, Candidates()),
    )
    seen = tuple(CARD.kept_types[:1])
    check_scoring(replace(SCORE, filters=filters, cold=Cold(USERS, 1.0), seen=seen), CARD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seen": ("sold",)}, r"score\.seen names sold, but the log keeps the event types "),
        ({"cold": Cold("town", None)}, r"score\.cold\.segment is 'town', but the table of users"),
        ({"rules": ("prise < 3",)}, "there is no column prise"),
        ({"rules": ("SELECT true",)}, "it must be one expression"),
        ({"rules": ("item_id",)}, "it gives VARCHAR, not BOOLEAN"),
        ({"available": Available("begin", None)}, r"available\.since is 'begin', but the table of"),
        ({"segments": Segments("town", {}, Candidates())}, r"segments\.by is 'town'"),
        (
            {"segments": Segments(USERS, {"a": Candidates(rules=("x > 1",))}, Candidates())},
            "column x",
        ),
        ({"segments": Segments(USERS, {}, Candidates(rules=("y > 1",)))}, "column y"),
    ],
)
def test_what_the_card_does_not_declare_is_refused(change: dict[str, object], said: str) -> None:
    of_score = {key: one for key, one in change.items() if key in ("seen", "cold")}
    of_filters = {key: one for key, one in change.items() if key not in of_score}
    score = replace(SCORE, filters=replace(SCORE.filters, **of_filters), **of_score)
    with pytest.raises(ConfigError, match=said):
        check_scoring(score, CARD)
