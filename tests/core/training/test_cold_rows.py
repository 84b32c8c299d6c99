"""The regression that tells items without history: what it finds, and what it leaves alone."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from recsys_core.data.features import Encoded, encode
from recsys_core.errors import ModelError
from recsys_core.models.item_features import ItemFeatures, feature_rows, new_item_rows
from recsys_core.models.new_items import with_new_items
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.models.wide_features import Atoms, columns_of
from recsys_core.training import wide_columns
from recsys_core.training.cold_rows import ColdRows, with_cold_rows
from recsys_core.training.fit_rnn import RnnTrainer
from recsys_core.training.item_mixing import KnownFeatures
from recsys_core.training.wide_columns import choose_columns
from tests.core.training.test_item_mixing import PARAMS, embeddings_of, ndcg_at_10, train
from tests.feature_log import (
    FEATURES,
    GENRES,
    N_ITEMS,
    WARM,
    encoding_of,
    genre_log,
    genre_of,
    item_table,
    known_features,
)
from tests.markov_log import CPU

LOG = genre_log(1)
READ = replace(FEATURES, cold_ridges=(1.0, 10.0, 100.0))
EMBEDDINGS = embeddings_of(LOG, epochs=8)


def trained(share: float | None) -> TwoTimeScale:
    trainer = RnnTrainer(
        LOG,
        PARAMS,
        embeddings=EMBEDDINGS,
        seed=1,
        device=CPU,
        validation=None,
        features=known_features(WARM, replace(FEATURES, training_share=share)),
    )
    return train(trainer, epochs=4)


MODEL = trained(None)


def told(
    model: TwoTimeScale = MODEL,
    known: KnownFeatures | None = None,
    *,
    counts: np.ndarray = LOG.item_counts,
    seed: int = 1,
) -> tuple[TwoTimeScale, ColdRows | None]:
    known = known or known_features(WARM, READ)
    return with_cold_rows(model, known, counts=counts, rng=np.random.default_rng(seed))


def new_features() -> ItemFeatures:
    """Those of the items that the log lacks, behind PAD."""
    table = item_table(N_ITEMS)
    ids = table["item_id"].combine_chunks().slice(WARM)
    return ItemFeatures.of(encode(encoding_of(WARM), table, ids), device=CPU)


def with_rows(model: TwoTimeScale, vectors: torch.Tensor, bias: torch.Tensor) -> TwoTimeScale:
    other = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
    other.set_items(vectors, bias)
    return other


def test_cold_items_are_told_better_and_known_ones_are_what_they_were() -> None:
    """Half of the items are new. A fixed lambda left the features next to nothing to tell, and the
    regression mends it."""
    events = LOG.events
    users = np.arange(1, events.n_users + 1)
    history = np.diff(events.offsets)[users]
    genre = genre_of(events.item_idx).reshape(len(users), -1)  # (N, T)
    wanted = np.array([np.bincount(row, minlength=GENRES).argmax() for row in genre])
    good = genre_of(np.arange(1, N_ITEMS + 1)) == wanted[:, None]  # (N, items)
    model = trained(0.5)
    after, found = told(model)
    assert found is not None
    values = []
    for one, rows_of in ((model, feature_rows), (after, new_item_rows)):
        assert one.decoder is not None
        vectors = user_vectors(one, events, user_idx=users, history=history)
        rows = rows_of(one.decoder, new_features())[1:]
        with torch.no_grad():
            scores = with_new_items(one, rows).scores(torch.from_numpy(vectors)).numpy()[:, 1:]
        values.append(ndcg_at_10(scores[:, WARM:], good[:, WARM:]))
    assert values[1] > 0.9
    assert values[1] > values[0] + 0.15
    assert found.explained > found.explained_as_trained + 0.1
    other = after.to_arrays()
    for name, value in model.to_arrays().items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)
    assert set(other) - set(model.to_arrays()) == {
        "decoder.wide.columns",
        "decoder.wide.coefficients",
    }
    again = TwoTimeScale.from_arrays(after.to_json(), other)
    assert again.decoder is not None
    assert torch.equal(new_item_rows(again.decoder, new_features()), rows_of_new(after))


def rows_of_new(model: TwoTimeScale) -> torch.Tensor:
    assert model.decoder is not None
    return new_item_rows(model.decoder, new_features())


def test_coefficients_are_those_of_the_equation() -> None:
    known = known_features(WARM, replace(READ, cold_ridges=(7.0,)))
    after, found = told(known=known)
    assert found is not None
    assert found.ridge == 7.0
    assert MODEL.decoder is not None
    assert after.decoder is not None
    assert after.decoder.wide is not None
    features = ItemFeatures.of(known.encoded, device=CPU)
    atoms = Atoms(known.encoding.n_codes, known.encoding.n_numbers)
    wide = columns_of(
        atoms.of(features.codes, features.weights, features.numbers), after.decoder.wide.columns
    ).numpy()[1:]
    rows = torch.cat([MODEL.item_vectors, MODEL.item_bias.unsqueeze(1)], dim=1).detach()
    left = (rows - feature_rows(MODEL.decoder, features)).numpy()[1:].astype(np.float64)
    weight = np.sqrt(LOG.item_counts[1:])[:, None]
    weight /= weight.mean()
    gram = wide.T.astype(np.float64) @ (weight * wide)
    penalty = np.diag([0.0, *[7.0] * (found.columns - 1)])
    expected = np.linalg.solve(gram + penalty, wide.T @ (weight * left))
    np.testing.assert_allclose(after.decoder.wide.coefficients, expected, rtol=1e-3, atol=1e-4)


def random_rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(WARM + 1, MODEL.config.dim, generator=draws), torch.zeros(WARM + 1)


def test_the_ridge_is_as_large_as_held_out_items_ask_for() -> None:
    """Where the genre tells what the decoder leaves it is small; where nothing does, the largest,
    and little is added to what the decoder says."""
    ridges = (0.1, 10.0, 1000.0)
    known = known_features(WARM, replace(READ, cold_ridges=ridges))
    vectors, bias = random_rows(1)
    of_genre = vectors[1 + torch.from_numpy(genre_of(np.arange(WARM + 1)))]
    _, clear = told(with_rows(MODEL, of_genre, bias), known)
    assert clear is not None
    assert clear.ridge == 0.1
    assert clear.explained > 0.95
    assert MODEL.decoder is not None
    said = feature_rows(MODEL.decoder, ItemFeatures.of(known.encoded, device=CPU))
    after, noise = told(with_rows(MODEL, said[:, :-1] + vectors, said[:, -1]), known)
    assert noise is not None
    assert noise.ridge == 1000.0
    assert noise.explained <= noise.explained_as_trained + 0.01
    added = (rows_of_new(after) - feature_rows(MODEL.decoder, new_features()))[1:, :-1]
    assert float(added.std(0).mean()) < 0.1


def test_new_items_are_about_as_popular_as_known_ones() -> None:
    """The level of the biases says nothing among known items, and all beside new ones."""
    bias = MODEL.item_bias.detach() - 7.0
    after, _ = told(with_rows(MODEL, MODEL.item_vectors.detach(), bias))
    new = rows_of_new(after)[1:, -1]
    assert abs(float(new.mean() - bias[1:].mean())) < 0.5
    assert float(rows_of_new(MODEL)[1:, -1].mean() - bias[1:].mean()) > 5.0


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_known_items_without_an_event_take_their_new_rows_up(
    score: Literal["dot", "cosine"],
) -> None:
    config = {**MODEL.to_json(), "score": score}
    model = TwoTimeScale.from_arrays(config, MODEL.to_arrays())
    model.set_items(MODEL.item_vectors.detach(), MODEL.item_bias.detach())
    counts = LOG.item_counts.copy()
    counts[[4, 9]] = 0
    known = known_features(WARM, READ)
    after, found = told(model, known, counts=counts)
    assert found is not None
    assert found.items == WARM - 2
    assert after.decoder is not None
    rows = new_item_rows(after.decoder, ItemFeatures.of(known.encoded, device=CPU))
    expected = after.item_rows(rows[:, :-1])
    others = np.setdiff1d(np.arange(WARM + 1), [4, 9])
    torch.testing.assert_close(after.item_vectors.detach()[[4, 9]], expected[[4, 9]])
    torch.testing.assert_close(after.item_bias.detach()[[4, 9]], rows[[4, 9], -1])
    assert torch.equal(after.item_vectors[others], model.item_vectors[others])
    assert torch.equal(after.item_bias[others], model.item_bias[others])
    # what is told of the items is near to what they are
    near = torch.nn.functional.cosine_similarity(expected[others], after.item_vectors[others])
    assert float(near[1:].mean().detach()) > 0.6


def test_the_folds_are_those_of_the_draw() -> None:
    one, same, other = (told(seed=seed)[1] for seed in (1, 1, 2))
    assert one is not None
    assert other is not None
    assert one == same
    assert one.explained != other.explained


def test_without_ridges_or_items_nothing_is_regressed() -> None:
    model, found = told(known=known_features(WARM, FEATURES))
    assert model is MODEL
    assert found is None
    few = np.where(np.arange(WARM + 1) < 10, LOG.item_counts, 0)
    model, found = told(counts=few)
    assert model is MODEL
    assert found is None


def test_a_ridge_that_is_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="cold_ridges: with 1e-300 the regression on"):
        told(known=known_features(WARM, replace(READ, cold_ridges=(1e-300,))))


def columns_by(
    encoded: Encoded, *, paired: tuple[bool, ...], n_codes: tuple[int, ...]
) -> list[tuple[int, int]]:
    features = ItemFeatures.of(encoded, device=CPU).take(slice(1, None))
    atoms = Atoms(n_codes, encoded.numbers.shape[1])
    found: list[tuple[int, int]] = list(
        map(tuple, choose_columns(atoms, features, paired=paired).tolist())
    )
    return found


def bag(codes: list[list[int]]) -> Encoded:
    """Four items with up to two codes of a list, and no number."""
    values = np.array([[0, 0], *codes], dtype=np.int32)
    counts = known_features(WARM).encoded.counts
    weights = (values > 0).astype(np.float32)
    return Encoded((values,), (weights,), np.zeros((len(values), 0), np.float32), counts)


def test_columns_are_of_what_enough_items_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code 3 has one item; 1 and 2 go together twice, 2 and 4 too; 1 is the most frequent."""
    encoded = bag([[1, 2], [1, 2], [1, 3], [2, 4], [2, 4], [1, 0], [1, 0]])
    one, first = (0, 0), 1  # atoms of codes begin behind one
    c1, c2, c4 = first + 1, first + 2, first + 4
    singles = [one, (0, c1), (0, c2), (0, c4)]
    assert columns_by(encoded, paired=(True,), n_codes=(5,)) == [*singles, (c1, c2), (c2, c4)]
    assert columns_by(encoded, paired=(False,), n_codes=(5,)) == singles
    monkeypatch.setattr(wide_columns, "MOST_CODES", 2)
    monkeypatch.setattr(wide_columns, "MOST_PAIRS", 1)
    assert columns_by(encoded, paired=(True,), n_codes=(5,)) == [*singles[:3], (c1, c2)]
    monkeypatch.setattr(wide_columns, "MOST_PAIRED", 1)
    assert columns_by(encoded, paired=(True,), n_codes=(5,)) == singles[:3]


def test_codes_are_multiplied_with_broad_bumps() -> None:
    known = known_features(WARM)
    columns = columns_by(known.encoded, paired=(True,), n_codes=known.encoding.n_codes)
    atoms = Atoms(known.encoding.n_codes, known.encoding.n_numbers)
    assert len(set(columns)) == len(columns)
    crossed = [pair for pair in columns if pair[1] >= atoms.first_broad]
    assert crossed
    assert all(1 <= code < atoms.first_bump for code, _ in crossed)
    bumps = [second for first, second in columns if first == 0 and second >= atoms.first_bump]
    assert bumps == list(range(atoms.first_bump, atoms.first_broad))
