"""How far one more event moves a user's embedding, and from which number of events on that is
little: the step-size diagnostic of 2TS (section 1.2 of its specification).

    delta(t) = mean over users of |phi_(t+1) - phi_t|     phi_t folded in from the first t events
    t*       = min { t : delta(t) <= rho delta(1) }       at least 5, at most 200

Users with many events differ from those with few, so the two steps that are compared are always
those of the same users: the ones with more than t events, whose t-th step there is. Where it falls
as 1 / t, as for preferences that stay, t* is about 1 / rho plus a little for the ridge.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys_core.data.events import Events
from recsys_core.models.fold_in import FoldIn

MOST_STEPS = 200

FEWEST_USERS = 20
"""Behind a step that is judged: the mean over fewer is mostly noise."""

T_STAR_RANGE = (5, MOST_STEPS)

USERS_AT_ONCE = 65_536
"""Bounds the memory of the sums: 16 MiB at 64 dimensions."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepSizes:
    """The steps t = 1 ... T, T at most `MOST_STEPS`, as far as there are users behind them."""

    users: Int64  # (T,) those with more than t events
    step: Float64  # (T,) their mean t-th step
    first_step: Float64  # (T,) the mean first step of the very same users

    @property
    def share(self) -> Float64:
        """The t-th step as a share of the first one of the same users, 0 where that is 0. (T,)"""
        moved = self.first_step > 0
        return np.divide(self.step, self.first_step, out=np.zeros(len(self.step)), where=moved)

    def rows(self) -> list[dict[str, float | int]]:
        """One row a step, for `dvc plots`."""
        columns = zip(self.users, self.step, self.first_step, self.share, strict=True)
        return [
            {
                "interactions": t,
                "users": int(users),
                "step": float(f"{step:.6g}"),
                "first_step": float(f"{first:.6g}"),
                "share": float(f"{share:.6g}"),
            }
            for t, (users, step, first, share) in enumerate(columns, start=1)
        ]


def step_sizes(fold_in: FoldIn, events: Events, counts: Int64) -> StepSizes:
    """The steps of users over their first `counts` events each, (U + 1,), all of known items."""
    users = np.zeros(MOST_STEPS, dtype=np.int64)
    step, first_step = np.zeros(MOST_STEPS), np.zeros(MOST_STEPS)
    # in its eigenbasis the fold-in is a division, and lengths are the same
    centred = np.asarray((fold_in.items - fold_in.mean) @ fold_in.basis, dtype=np.float32)
    everyone = np.flatnonzero(counts > 1)
    everyone = everyone[np.argsort(-counts[everyone], kind="stable")]  # who goes on comes first
    for begin in range(0, len(everyone), USERS_AT_ONCE):
        some = everyone[begin : begin + USERS_AT_ONCE]
        firsts = np.zeros(len(some))
        for t, steps in _steps(fold_in, centred, events, some, counts[some]):
            m = len(steps)
            if t == 1:
                firsts = steps
            users[t - 1] += m
            step[t - 1] += steps.sum()
            first_step[t - 1] += firsts[:m].sum()
    there = users > 0
    users = users[there]
    return StepSizes(users=users, step=step[there] / users, first_step=first_step[there] / users)


def _steps(
    fold_in: FoldIn,
    centred: npt.NDArray[np.float32],
    events: Events,
    user_idx: Int64,
    counts: Int64,
) -> Iterator[tuple[int, Float64]]:
    """t and |phi_(t+1) - phi_t| of the users with more than t events, the first ones of `user_idx`,
    which is ordered by `counts`, falling."""
    first_row = events.offsets[user_idx]
    sums = centred[events.item_idx[first_row]]  # (U, D)
    variance, l2 = fold_in.variance, np.float32(fold_in.l2)
    before = sums / (variance + l2)  # (U, D) phi_1
    for t in range(1, MOST_STEPS + 1):
        m = int(np.searchsorted(-counts, -t, side="left"))  # those with more than t
        if m == 0:
            return
        sums = sums[:m] + centred[events.item_idx[first_row[:m] + t]]
        now = sums / ((t + 1) * variance + l2)
        yield t, np.linalg.norm(now - before[:m], axis=1).astype(np.float64)
        before = now


def choose_t_star(steps: StepSizes, *, rho: float) -> int:
    """t*: the least t whose step is at most `rho` of the first one, within `T_STAR_RANGE`.

    Only steps with `FEWEST_USERS` behind them are judged. Where none of those is that small, no
    user of this log has settled within the range, and it is the range's end.
    """
    low, high = T_STAR_RANGE
    settled = np.flatnonzero((steps.share <= rho) & (steps.users >= FEWEST_USERS))
    return int(np.clip(settled[0] + 1, low, high)) if len(settled) else high
