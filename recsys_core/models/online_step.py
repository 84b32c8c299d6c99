"""The two-time-scale model one event at a time, for those who answer while somebody looks on.

A row's state (S + 1 numbers) is that of the network which answers it, and whether the request that
was answered last opened a session. A step with item 0 begins: the state is not read, and the answer
is that to a user without an event, or to one whose events lie in the user vector alone. Every later
step reads one event. After t steps the answer is that of `TwoTimeScale.forward` on these t events
with the same user vector, at a cost that does not depend on t.

What an event's numbers say of the request behind it (`request_seconds`, `opens_session`) is known
when that is answered. Where the next event came at another time than was said, the step before it
is taken again from the state that it began with.
"""

import torch
from torch import Tensor

from recsys_core.data.histories import EVENT_NUMBERS
from recsys_core.models.two_time_scale import ActiveNetwork, InactiveNetwork, TwoTimeScale


def state_size(model: TwoTimeScale) -> int:
    """Numbers that are carried for a user."""
    return model.inactive.stack.state_size + 1


def step(
    model: TwoTimeScale,
    state: Tensor,
    item: Tensor,
    event_numbers: Tensor,
    user_vector: Tensor,
    active: Tensor,
    user_fields: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Queries (B, D), what is asked of ratings (B, D + 1) where they are predicted, and the next
    state (B, S + 1).

    Takes the state, one item (B,) with its numbers (B, .), the user vector (B, D), whom the active
    network answers (B,), and users' fields (B, .).
    """
    begins = item == 0  # (B,)
    said = event_numbers[:, EVENT_NUMBERS.index("opens_session")] > 0.0  # (B,)
    # the start opens nothing, and the first event that is read opens a session
    opened = (state[:, -1] > 0.0) & ~begins
    behind = said | begins
    flags = torch.stack([opened, behind], dim=1)  # (B, 2)
    fast, slow = (
        _network_step(
            model, network, state[:, :-1], item, event_numbers, user_vector, user_fields, flags
        )
        for network in (model.inactive, model.active)
    )
    picked = active.unsqueeze(1)  # (B, 1)
    query = torch.where(picked, slow[0], fast[0])
    carried = torch.where(picked, slow[2], fast[2])  # (B, S)
    carried = torch.cat([carried, behind.to(carried.dtype).unsqueeze(1)], dim=1)
    if fast[1] is None or slow[1] is None:
        return query, None, carried
    return query, torch.where(picked, slow[1], fast[1]), carried


def _network_step(
    model: TwoTimeScale,
    network: InactiveNetwork | ActiveNetwork,
    state: Tensor,
    item: Tensor,
    event_numbers: Tensor,
    user_vector: Tensor,
    user_fields: Tensor,
    flags: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Query, what is asked of ratings, and the state after, of one network."""
    begins = (item == 0).unsqueeze(1)  # (B, 1)
    items = item.unsqueeze(1)  # (B, 1)
    steps = network.steps(
        model.item_vectors[items],
        event_numbers.unsqueeze(1),
        expected=None if model.ratings is None else model.ratings.expected(items),
        user_fields=user_fields,
    )  # (B, 2, H)
    read = torch.where(begins, steps[:, 0], steps[:, 1])  # (B, H)
    before = torch.where(begins, network.initial(user_vector), state)  # (B, S)
    output, after = network.stack.step(read, before, flags)
    query = model.queries(network.vectors(output, user_vector))
    return query, None if network.rate is None else network.rate(output), after
