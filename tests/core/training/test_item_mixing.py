"""Item features in stage two: what a batch and a finished model make of them, and what they are
good for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_core.data.features import encode
from recsys_core.models.embeddings import Embeddings
from recsys_core.models.item_decoder import mix
from recsys_core.models.item_features import ItemFeatures, feature_rows
from recsys_core.models.new_items import with_new_items
from recsys_core.models.predict import user_vectors
from recsys_core.models.two_time_scale import TwoTimeScale
from recsys_core.sections import Features, TrainRnn
from recsys_core.training.fit_embeddings import EmbeddingTrainer
from recsys_core.training.fit_rnn import TOGETHER, Phase, RnnTrainer
from recsys_core.training.item_mixing import ItemMixing
from recsys_core.training.log_until import LogUntil
from recsys_core.training.loop import Checkpoint, Fit
from tests.feature_log import (
    COLD,
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
from tests.markov_log import CPU, STAGE_ONE, STAGE_TWO

PARAMS = replace(STAGE_TWO, batch=128, negatives=16)
LOG = genre_log(1)


def embeddings_of(log: LogUntil, *, epochs: int = 1) -> Embeddings:
    trainer = EmbeddingTrainer(log, STAGE_ONE, seed=1, device=CPU, validation=None)
    for _ in Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=None).run():
        pass
    return trainer.embeddings(fold_in_l2=10.0)


STAGE_ONE_DONE = embeddings_of(LOG)


def trainer_of(
    params: TrainRnn = PARAMS,
    features: Features | None = FEATURES,
    *,
    phase: Phase = TOGETHER,
    after: TwoTimeScale | None = None,
) -> RnnTrainer:
    return RnnTrainer(
        LOG,
        params,
        embeddings=STAGE_ONE_DONE,
        seed=1,
        device=CPU,
        validation=None,
        phase=phase,
        after=after,
        features=None if features is None else known_features(WARM, features),
    )


def train(
    trainer: RnnTrainer, *, epochs: int = 1, checkpoint: Checkpoint | None = None
) -> TwoTimeScale:
    fit = Fit(trainer, phase="t", max_epochs=epochs, patience=None, checkpoint=checkpoint)
    for _ in fit.run():
        pass
    return trainer.finished_model()


def differing(one: TwoTimeScale, two: TwoTimeScale) -> set[str]:
    """The names of the weights that are not the same bits."""
    other = two.to_arrays()
    return {name for name, value in one.to_arrays().items() if (value != other[name]).any()}


def said_by_features(model: TwoTimeScale, items: np.ndarray) -> torch.Tensor:
    """What the model's decoder says of items by their idx. (N, D + 1)"""
    assert model.decoder is not None
    table = item_table(N_ITEMS)
    ids = table["item_id"].combine_chunks().take(items - 1)
    features = ItemFeatures.of(encode(encoding_of(WARM), table, ids), device=CPU)
    return feature_rows(model.decoder, features)[1:]


def mixing_of(**changes: object) -> ItemMixing:
    """Of a decoder whose weights are drawn; items 1 to 3 have no event, the others as many as
    their idx."""
    decoder = trainer_of().model.decoder
    assert decoder is not None
    counts = np.where(np.arange(WARM + 1) > 3, np.arange(WARM + 1), 0)
    known = known_features(WARM, replace(FEATURES, **changes))
    return ItemMixing(decoder, known, counts=counts, device=CPU)


def rows_of_ids() -> torch.Tensor:
    rows = torch.randn(WARM + 1, STAGE_ONE.dim + 1, generator=torch.Generator().manual_seed(3))
    rows[0] = 0.0
    return rows


def test_lambda_is_drawn_uniform_for_each_batch_or_fixed() -> None:
    draws = torch.Generator().manual_seed(1)
    drawn = np.array([mixing.lam(draws) for mixing in [mixing_of()] * 2000])
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.05)
    assert mixing_of(training_share=0.3).lam(draws) == 0.3


def test_the_rows_of_a_batch_are_those_of_the_whole_table() -> None:
    """Whatever stands in it how often, and so are the gradients."""
    mixing, ids = mixing_of(), rows_of_ids()
    items = [torch.tensor([[1, 7, 0], [7, 7, 60]]), torch.tensor([3, 1])]
    gradients = []
    for parts in (True, False):
        table = ids.clone().requires_grad_()
        own = [table[one] for one in items]
        if parts:
            found = mixing.parts(own, items, 0.3)
        else:
            whole = mixing.whole(table, 0.3)
            found = [whole[one] for one in items]
        sum((part.square().sum() for part in found), torch.zeros(())).backward()
        assert table.grad is not None
        gradients.append([table.grad, *(each.grad for each in mixing.decoder.parameters())])
        mixing.decoder.zero_grad()
        assert [part.shape for part in found] == [part.shape for part in own]
        torch.testing.assert_close(found[0][0, 1], whole_row(mixing, ids, 7, 0.3))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def whole_row(mixing: ItemMixing, ids: torch.Tensor, item: int, lam: float) -> torch.Tensor:
    return mixing.whole(ids, lam).detach()[item]


def test_a_finished_table_has_a_lambda_for_each_history() -> None:
    """Of an item without an event the features tell all, and PAD stays zero."""
    ids = rows_of_ids()
    mixing = mixing_of(warm_share=0.25)
    own = mixing.whole(ids, 1.0).detach()
    finished = mixing.finished(ids)
    assert torch.equal(finished[0], torch.zeros(STAGE_ONE.dim + 1))
    torch.testing.assert_close(finished[1:4], own[1:4])
    torch.testing.assert_close(finished[4:], 0.75 * ids[4:] + 0.25 * own[4:])
    by_events = mixing_of(share_events=10.0).finished(ids)
    n = torch.arange(WARM + 1).unsqueeze(1)
    torch.testing.assert_close(by_events[4:], (n * ids + 10 * own)[4:] / (n + 10)[4:])
    torch.testing.assert_close(by_events[1:4], own[1:4])


def test_the_finished_table_is_mixed_by_the_equation() -> None:
    trainer = trainer_of(features=replace(FEATURES, warm_share=0.4))
    model = train(trainer)
    ids = trainer.weights()["items"]
    own = said_by_features(model, np.arange(1, WARM + 1))
    expected = mix(ids[1:], own, 0.4)
    torch.testing.assert_close(model.item_vectors.detach()[1:], expected[:, :-1])
    torch.testing.assert_close(model.item_bias.detach()[1:], expected[:, -1])


def test_with_lambda_1_a_model_is_told_by_features_alone() -> None:
    """Whatever the rows of ids are; items of the same features have the same row."""
    trainer = trainer_of(features=replace(FEATURES, warm_share=1.0))
    train(trainer)
    before = trainer.finished_model().item_vectors.detach().clone()
    weights = trainer.weights()
    shuffled = torch.randperm(WARM + 1, generator=torch.Generator().manual_seed(1))
    trainer.load_weights(weights | {"items": weights["items"][shuffled].clone()})
    after = trainer.finished_model()
    assert torch.equal(after.item_vectors[1:], before[1:])
    torch.testing.assert_close(
        after.item_vectors.detach()[1:], said_by_features(after, np.arange(1, WARM + 1))[:, :-1]
    )


def test_with_lambda_0_features_are_ignored() -> None:
    """In training and afterwards: the model is the one without them, but for rounding."""
    off = replace(FEATURES, training_share=0.0, warm_share=0.0)
    without, ignored = train(trainer_of(features=None)), train(trainer_of(features=off))
    other = ignored.to_arrays()
    for name, value in without.to_arrays().items():
        np.testing.assert_allclose(other[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    assert not np.allclose(train(trainer_of()).to_arrays()["item_vectors"], other["item_vectors"])


def test_the_sampled_softmax_over_all_items_is_the_full_one() -> None:
    """As many negatives as items: the loss of the first epoch is that of the full softmax."""
    losses = {}
    for loss in ("softmax", "sampled_softmax"):
        params = replace(PARAMS, loss=loss, negatives=WARM, learning_rate_items=1e-6, batch=10**6)
        features = replace(FEATURES, training_share=0.4)
        *_, (_, _, losses[loss]) = trainer_of(params, features).epoch(1)
    assert losses["softmax"] == pytest.approx(losses["sampled_softmax"], rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bpr_max"])
@pytest.mark.parametrize("finetune_items", [True, False])
def test_the_decoder_learns_with_the_network_under_every_loss(
    loss: str, finetune_items: bool
) -> None:
    trainer = trainer_of(replace(PARAMS, loss=loss, finetune_items=finetune_items, item_pull=0.1))
    before = {name: value.clone() for name, value in trainer.weights().items()}
    *_, (_, _, mean) = trainer.epoch(1)
    assert np.isfinite(mean)
    still = {name for name, value in trainer.weights().items() if torch.equal(value, before[name])}
    assert {name for name in still if name.startswith("decoder.")} == set()
    assert ("items" in still) == (not finetune_items)


def test_what_a_fit_never_met_says_nothing() -> None:
    """Every item has a genre: code 0 is the unknown one, and stays what it began as."""
    decoder = train(trainer_of()).decoder
    assert decoder is not None
    genres = decoder.tables[0].weight.detach()
    assert genres.shape[0] == GENRES + 1
    assert not genres[0].any()
    assert genres[1:].any(dim=1).all()


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_an_interrupted_fit_ends_with_the_same_bits(loss: str, tmp_path: Path) -> None:
    params = replace(PARAMS, loss=loss, dropout=0.3)
    whole = train(trainer_of(params), epochs=3)
    checkpoint = Checkpoint(tmp_path / "t.safetensors", "mine")
    interrupted = Fit(
        trainer_of(params), phase="t", max_epochs=3, patience=None, checkpoint=checkpoint
    )
    for progress in interrupted.run():
        if progress.epoch == 2:
            break
    torch.manual_seed(9)
    trainer = trainer_of(params)
    resumed = Fit(trainer, phase="t", max_epochs=3, patience=None, checkpoint=checkpoint)
    assert {progress.epoch for progress in resumed.run()} == {2, 3}
    assert differing(trainer.finished_model(), whole) == set()


def test_apart_the_mixed_table_and_the_decoder_stand_still() -> None:
    """Both are those of the one network, whose weights the two begin with."""
    model = train(trainer_of())
    still = {name for name in model.to_arrays() if name.startswith(("item_", "decoder.", "fold_"))}
    assert len(still) > 10
    learners: tuple[Phase, ...] = ("inactive", "active")
    for phase in learners:
        before = TwoTimeScale.from_arrays(model.to_json(), model.to_arrays())
        model = train(trainer_of(phase=phase, after=model))
        changed = differing(model, before)
        assert any(name.startswith(f"{phase}.stack") for name in changed)
        assert not changed & still, phase


def test_cosine_takes_the_length_of_the_mixture() -> None:
    trainer = trainer_of(replace(PARAMS, score="cosine"))
    model = train(trainer)
    ids, own = trainer.weights()["items"], said_by_features(model, np.arange(1, WARM + 1))
    mixed = mix(ids[1:], own, 0.5)[:, :-1]
    expected = mixed / mixed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.item_vectors.detach()[1:], expected)
    assert not model.item_vectors[0].any(), "PAD"


def ndcg_at_10(scores: np.ndarray, good: np.ndarray) -> float:
    """Mean over rows; each has ten good items at least. (N, M), (N, M)"""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    discount = 1 / np.log2(np.arange(2, 12))
    gains = (np.take_along_axis(good, best, axis=1) * discount).sum(axis=1)
    return float((gains / discount.sum()).mean())


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_a_drawn_lambda_tells_cold_items_where_a_fixed_one_does_not(loss: str) -> None:
    """Specification 2.7, 8. Stage one knows every item's genre, so that with a fixed lambda the
    features fill in next to nothing; drawn, they have to tell it themselves. Half of the items are
    not in the log, and are ranked among themselves. Known items are told either way."""
    cold: dict[float | None, list[float]] = {None: [], 0.5: []}
    warm: dict[float | None, list[float]] = {None: [], 0.5: []}
    for seed in (1, 2):
        log = genre_log(seed)
        events, embeddings = log.events, embeddings_of(log, epochs=8)
        users = np.arange(1, events.n_users + 1)
        history = np.diff(events.offsets)[users]
        genre = genre_of(events.item_idx).reshape(len(users), -1)  # (N, T)
        wanted = np.array([np.bincount(row, minlength=GENRES).argmax() for row in genre])
        good = genre_of(np.arange(1, N_ITEMS + 1)) == wanted[:, None]  # (N, items)
        for share in (None, 0.5):
            trainer = RnnTrainer(
                log,
                replace(PARAMS, loss=loss),
                embeddings=embeddings,
                seed=seed,
                device=CPU,
                validation=None,
                features=known_features(WARM, replace(FEATURES, training_share=share)),
            )
            model = train(trainer, epochs=6)
            new = said_by_features(model, np.arange(WARM + 1, N_ITEMS + 1))
            assert len(new) == COLD
            vectors = user_vectors(model, events, user_idx=users, history=history)
            with torch.no_grad():
                scores = with_new_items(model, new).scores(torch.from_numpy(vectors)).numpy()[:, 1:]
            cold[share].append(ndcg_at_10(scores[:, WARM:], good[:, WARM:]))
            warm[share].append(ndcg_at_10(scores[:, :WARM], good[:, :WARM]))
    assert min(*warm[None], *warm[0.5]) > 0.9
    assert np.mean(cold[None]) > 0.85
    assert np.mean(cold[None]) > np.mean(cold[0.5]) + 0.15
