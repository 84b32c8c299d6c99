"""Scores of cold items by a trained model, for the histories of users that it has never met.

    network    asked at every place of a history, since the list asks for all that a user had and
               not for what came last: the mean of the probabilities among what is asked for
    fold_in    stage one alone: the vector that a history implies, in closed form

Cold items have no id that was learned. Their rows are those of the model's decoder (lambda 1), with
the regression that ends its training or without, or the rows of warm items carried over
(`cold_carry.py`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from benchmarks.cold_split import ColdSplit
from recsys_core.artifacts import read_json
from recsys_core.data.events import Events, first_rows_of_sessions
from recsys_core.data.features import Encoded, FeatureEncoding, encode, fit_encoding
from recsys_core.data.histories import gather_histories
from recsys_core.data.vocabulary import Vocabulary
from recsys_core.layout import Layout
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.fold_in import FoldIn
from recsys_core.models.item_features import ItemFeatures, feature_rows, new_item_rows
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.tables import ITEM_VOCABULARY, read_table
from tasks.item_features import ENCODING, ITEM_TABLE

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

USERS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of every model: histories of the test users (user k of the split is user k + 1
    here) in the numbers of the workspace's items, and the features of both kinds of items."""

    histories: Events
    counts: Int64  # (U,) events of each user
    encoding: FeatureEncoding
    warm: Encoded
    cold: Encoded
    n_items: int


def read_asked(layout: Layout, split: ColdSplit, log: pa.Table) -> Asked:
    """What is asked of the models of a workspace that learned from the split."""
    items = Vocabulary.from_table(read_table(layout.item_vocabulary, ITEM_VOCABULARY))
    card = read_json(layout.resolved_card)
    kinds = {name: one["kind"] for name, one in card["item_features"].items() if name != "title"}
    table = read_table(layout.item_features, ITEM_TABLE).select([items_column(), *kinds])
    encoding = fit_encoding(table, kinds, ids=items.ids, most=1000, words=1)
    histories = split.histories(log)
    # what nobody learned from has no number: a warm item of test users alone is left out
    known = histories.filter(pc.is_in(histories["item_id"], value_set=items.ids))
    user = pc.index_in(known["user_id"], value_set=split.test_users).to_numpy()
    by_user = np.argsort(user, kind="stable")
    item = pc.index_in(known["item_id"], value_set=items.ids).to_numpy()[by_user] + 1
    counts = np.bincount(user, minlength=len(split.test_users)).astype(np.int64)
    return Asked(
        histories=_events(item.astype(np.int32), counts),
        counts=counts,
        encoding=encoding,
        warm=encode(encoding, table, items.ids),
        cold=encode(encoding, table, split.cold_items),
        n_items=len(items.ids),
    )


def items_column() -> str:
    """The first column of a table of items."""
    return str(ITEM_TABLE.names[0])


def decoded_rows(
    layout: Layout, model: TwoTimeScale, split: ColdSplit, *, as_trained: bool
) -> Tensor:
    """Rows of the cold items by the model's own decoder, as they are scored; `as_trained`, without
    the regression on the finished rows. (C, D + 1)"""
    assert model.decoder is not None, "a model that reads features"
    encoding = FeatureEncoding.from_json(read_json(layout.stage("train_rnn") / ENCODING))
    table = read_table(layout.item_features, ITEM_TABLE).select([items_column(), *encoding.kinds])
    features = encode(encoding, table, split.cold_items)
    said = feature_rows if as_trained else new_item_rows
    rows = said(model.decoder, ItemFeatures.of(features, device=torch.device("cpu")))[1:]
    return torch.cat([model.item_rows(rows[:, :-1]), rows[:, -1:]], dim=1)


def carried_rows(carry: Float32, vectors: Float32, bias: Float32) -> Tensor:
    """Rows of the cold items from those of the warm ones: (C, V), (V + 1, D), (V + 1,) to
    (C, D + 1)."""
    return torch.from_numpy(carry @ np.column_stack([vectors, bias])[1:])


@torch.inference_mode()
def network_scores(model: TwoTimeScale, asked: Asked, rows: Tensor) -> Float32:
    """How much each user is expected to take of each item, (C, D + 1) to (U, C): the mean over the
    places of a history of the softmax among these items."""
    assert model.config.ablation == "one_rnn", "one network answers everybody"
    network, scores = model.inactive, np.zeros((len(asked.counts), len(rows)), dtype=np.float32)
    by_length = np.argsort(asked.counts, kind="stable")
    for first in range(0, len(by_length), USERS_AT_ONCE):
        users = by_length[first : first + USERS_AT_ONCE]
        read = gather_histories(
            asked.histories,
            users + 1,
            start=np.zeros(len(users), dtype=np.int64),
            stop=asked.counts[users],
            reads=model.config.reads,
        )
        user_vector = torch.zeros(len(users), model.config.dim)
        outputs = network.outputs(
            model.item_vectors[torch.from_numpy(read.items)],
            torch.from_numpy(read.numbers),
            network.initial(user_vector),
        )  # (B, T + 1, H)
        queries = model.queries(network.vectors(outputs, user_vector.unsqueeze(1)))  # (B, T + 1, D)
        shares = torch.softmax(queries @ rows[:, :-1].T + rows[:, -1], dim=-1)  # (B, T + 1, C)
        place = torch.arange(shares.shape[1])
        # before any event nobody is asked about, unless there is none
        length = torch.from_numpy(asked.counts[users])
        counted = (place <= length[:, None]) & (place >= length[:, None].clamp_max(1))
        told = (shares * counted.unsqueeze(-1)).sum(1) / counted.sum(1, keepdim=True)
        scores[users] = told.numpy()
    return scores


def fold_in_scores(embeddings: Embeddings, asked: Asked, rows: Tensor) -> Float32:
    """Stage one's scores of what each history implies. (U, C)"""
    users = np.arange(1, len(asked.counts) + 1)
    vectors = FoldIn.of(embeddings).vectors(asked.histories, users, count=asked.counts)
    scores: Float32 = vectors @ rows[:, :-1].numpy().T + rows[:, -1].numpy()
    return scores


def _events(item: npt.NDArray[np.int32], counts: Int64) -> Events:
    """Histories without times: each row a second after the one before, each user one session."""
    n = len(item)
    session = np.repeat(np.arange(1, len(counts) + 1), counts)
    return Events(
        offsets=np.concatenate([[0, 0], np.cumsum(counts)]),
        item_idx=item,
        timestamp=np.arange(n, dtype=np.int64) * 1_000_000,
        session_idx=session,
        session_start=first_rows_of_sessions(session),
        event_type=np.zeros(n, dtype=np.int8),
        value=np.full(n, np.nan, dtype=np.float32),
        source_row=np.arange(n, dtype=np.int64),
    )
