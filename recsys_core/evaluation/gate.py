"""Whether a candidate may score: it must not be worse than a floor, a baseline on the same targets.

The difference of the first metric, candidate - floor, has a 95 % interval by a bootstrap over
users. The candidate is rejected where even the upper bound is below -margin. Where fewer than
`min_targets` were ranked nothing can be told, and the candidate is not accepted: the incumbent, or
popularity, scores until nights have added up.

| verdict  | incumbent      | what scores next                                  |
|----------|----------------|---------------------------------------------------|
| accepted | any            | the candidate                                     |
| rejected | none           | popularity, so that there is a table              |
| rejected | popularity     | popularity again, counted up to today             |
| rejected | two_time_scale | the incumbent stays                               |
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_core.columns import MODEL, POSITION, RANK, USER_IDX
from recsys_core.errors import ContractError
from recsys_core.evaluation.metrics import metric_of
from recsys_core.evaluation.significance import Interval, paired_difference
from recsys_core.evaluation.targets import queries
from recsys_core.sections import Gate

CANDIDATE = "two_time_scale"
AT_SCORING = "two_time_scale_at_scoring"
"""The candidate as scoring will ask it, where it reads when it is asked: what the gate judges."""
FROZEN_TREND = "two_time_scale_frozen_trend"
"""The candidate with one trend for all, as in scoring, where evaluation streams."""
FALLBACK = "popularity"


@dataclass(frozen=True)
class Verdict:
    """What the gate found. Values are means of `metric` over queries; None where none."""

    passed: bool
    reason: str
    metric: str
    candidate: str
    """What was judged: the candidate's row of the ranks."""
    floor: str
    margin: float
    min_targets: int
    targets: int
    users: int
    candidate_value: float | None
    floor_value: float | None
    difference: Interval | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def graph(self, incumbent: str | None) -> str | None:
        """The graph of the candidate's bundle that scores next; None: the incumbent stays."""
        if self.passed:
            return CANDIDATE
        return FALLBACK if incumbent in (None, FALLBACK) else None


@dataclass(frozen=True)
class ModelRanks:
    """One model's ranks, in the order of their targets."""

    user_idx: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]


def judge(
    ranks: pa.Table, gate: Gate, *, metric: str, draws: int, rng: np.random.Generator
) -> Verdict:
    """The verdict on the two-time-scale model, from the rows of RANKS: as it will be asked in
    scoring, where it was ranked so too.

    Raises `ContractError` where candidate and floor were not ranked on the same targets.
    """
    models = pc.unique(ranks.column(MODEL)).to_pylist()
    name = next((one for one in (AT_SCORING, FROZEN_TREND) if one in models), CANDIDATE)
    candidate, floor = _ranks_of(ranks, name), _ranks_of(ranks, gate.floor)
    if not (
        np.array_equal(candidate.user_idx, floor.user_idx)
        and np.array_equal(candidate.position, floor.position)
    ):
        raise ContractError(
            f"ranks: {name} has {len(candidate.rank)} targets, {gate.floor} has "
            f"{len(floor.rank)}, and they are not "
            "the same ones; run `evaluate` again"
        )
    targets = len(candidate.rank)
    query = queries(candidate.user_idx, candidate.position)
    ours = metric_of(candidate.rank, metric, query=query)
    theirs = metric_of(floor.rank, metric, query=query)
    user_idx = candidate.user_idx[np.unique(query, return_index=True)[1]]
    difference = (
        paired_difference(ours, theirs, user_idx, rng=rng, draws=draws) if targets else None
    )
    passed, reason = _decide(difference, targets, gate, f"{metric} of {name}")
    return Verdict(
        passed=passed,
        reason=reason,
        metric=metric,
        candidate=name,
        floor=gate.floor,
        margin=gate.margin,
        min_targets=gate.min_targets,
        targets=targets,
        users=len(np.unique(candidate.user_idx)),
        candidate_value=float(ours.mean()) if targets else None,
        floor_value=float(theirs.mean()) if targets else None,
        difference=difference,
    )


def _decide(difference: Interval | None, targets: int, gate: Gate, what: str) -> tuple[bool, str]:
    if difference is None or targets < gate.min_targets:
        return (
            False,
            f"{targets} targets are too few to tell: gate.min_targets is {gate.min_targets}",
        )
    compared = (
        f"{what} - {gate.floor} is {difference.value:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}] on {targets} targets"
    )
    if difference.high < -gate.margin:
        return False, f"{compared}: worse than the floor by more than the margin {gate.margin:g}"
    return True, f"{compared}: not worse than the floor by more than the margin {gate.margin:g}"


def _ranks_of(ranks: pa.Table, model: str) -> ModelRanks:
    rows = ranks.filter(pc.equal(ranks.column(MODEL), model))
    if ranks.num_rows and not rows.num_rows:
        found = sorted(pc.unique(ranks.column(MODEL)).to_pylist())
        raise ContractError(
            f"ranks: no rows of model {model!r}, there are {found}; run `evaluate` again"
        )
    return ModelRanks(
        user_idx=rows.column(USER_IDX).to_numpy(),
        position=rows.column(POSITION).to_numpy(),
        rank=rows.column(RANK).to_numpy(),
    )
