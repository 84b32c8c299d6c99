"""Items that a trained model has never met, told by their features alone."""

from dataclasses import replace

import torch
from torch import Tensor

from recsys_core.errors import ModelError
from recsys_core.models.memory import Memory
from recsys_core.models.two_time_scale import TwoTimeScale


def with_new_items(model: TwoTimeScale, rows: Tensor) -> TwoTimeScale:
    """The model with N items more, behind its own: n_items + 1 to n_items + N.

    `rows` (N, D + 1) is what its decoder says of their features (`item_features.new_item_rows`, of
    which row 0 is PAD's): vectors with biases, taken up whole, for lambda is 1 without history. In
    fold-in they say nothing of a direction, for stage one never met them; their rating is what the
    user gives on the whole. All other rows are the same bits, and the given model stays as it is.
    Raises `ModelError` for rows of another width.
    """
    width = model.config.dim + 1
    if rows.dim() != 2 or rows.shape[1] != width:
        raise ModelError(
            f"new items: rows of shape {tuple(rows.shape)}, they must be (N, {width}); make them "
            "with the decoder of this model"
        )
    config = replace(model.config, n_items=model.config.n_items + len(rows))
    grown = TwoTimeScale(config).to(model.item_vectors.device)
    with torch.no_grad():
        vectors = model.item_rows(rows[:, :-1])  # (N, D)
        weights = model.state_dict()
        weights |= {
            "item_vectors": torch.cat([model.item_vectors, vectors]),
            "item_bias": torch.cat([model.item_bias, rows[:, -1]]),
            # fold-in reads what differs from the mean
            "fold_in_items": torch.cat(
                [model.fold_in_items, model.fold_in_mean.expand_as(vectors)]
            ),
        }
        if model.ratings is not None:
            weights["ratings.rows"] = torch.cat([model.ratings.rows, torch.zeros_like(rows)])
        grown.load_state_dict(weights)
    return grown.eval()


@torch.no_grad()
def memory_with_new_items(memory: Memory, n: int) -> Memory:
    """The memory with `n` items more, behind its own, which follow and resemble nothing.

    Nobody could ask for them yet, so that they are not taken to be unpopular: `log_recent` is the
    mean of the others', in each window, and factors the mean of all, as of any item without an
    event. The given memory stays as it is.
    """
    config = replace(memory.config, n_items=memory.config.n_items + n)
    grown = Memory(config).to(memory.network.device)
    tables = memory.state_dict()
    for name, axis in (
        ("next_items", 1),
        ("next_share", 1),
        ("similar_items", 0),
        ("similar_weight", 0),
        ("log_recent", 1),
        ("factor_items", 0),
    ):
        table = tables[name]
        if not table.numel():
            continue  # without the term there is none
        more = torch.zeros_like(table.narrow(axis, 0, 1)).repeat_interleave(n, dim=axis)
        if name == "log_recent":
            more = more + table[:, 1:].mean(dim=1, keepdim=True)
        if name == "factor_items":
            more = more + tables["factor_mean"]
        tables[name] = torch.cat([table, more], dim=axis)
    grown.load_state_dict(tables)
    return grown.eval()
