"""Rows from features (eq. 2 of HRNN-meta): what lambda lets through, and that it can be learned."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys_core.errors import ModelError
from recsys_core.models.item_decoder import (
    FeatureDecoder,
    FeatureDecoderConfig,
    item_lambda,
    mix,
)

N, DIM = 50, 8
CONFIG = FeatureDecoderConfig(dim=DIM, hidden=24, n_codes=(5, 9), n_numbers=4)


@dataclass(frozen=True)
class Features:
    codes: Sequence[Tensor]
    weights: Sequence[Tensor]
    numbers: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Features":
        return Features(
            [code[rows] for code in self.codes],
            [weight[rows] for weight in self.weights],
            self.numbers[rows],
        )

    def read_by(self, decoder: FeatureDecoder) -> Tensor:
        rows: Tensor = decoder(self.codes, self.weights, self.numbers)
        return rows


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decoder_of(config: FeatureDecoderConfig, *, seed: int = 1) -> FeatureDecoder:
    decoder = FeatureDecoder(config)
    generator = draws(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return decoder


def some_features(config: FeatureDecoderConfig = CONFIG, *, seed: int = 2) -> Features:
    """As an encoding gives them: one code in the first field, up to three in the others."""
    generator = draws(seed)
    codes, weights = [], []
    for place, n_codes in enumerate(config.n_codes):
        width = 3 if place else 1
        code = torch.randint(n_codes, (N, width), generator=generator, dtype=torch.int32)
        there = torch.arange(width) < torch.randint(1, width + 1, (N, 1), generator=generator)
        codes.append(code * there)
        weights.append(there / there.sum(1, keepdim=True).sqrt())
    return Features(codes, weights, torch.randn(N, config.n_numbers, generator=generator))


def id_rows(seed: int = 3) -> Tensor:
    return torch.randn(N, DIM + 1, generator=draws(seed))


def scores(rows: Tensor) -> Tensor:
    """phi_j(h) of three h, of which the last number is the one that multiplies b."""
    state = torch.randn(3, DIM, generator=draws(4))
    return state @ rows[:, :DIM].T + rows[:, DIM]  # (3, N)


@torch.no_grad()
def test_the_rows_are_those_of_the_equations() -> None:
    decoder, features = decoder_of(CONFIG), some_features()
    parts = []
    for table, read, code, weight in zip(
        decoder.tables, decoder.read, features.codes, features.weights, strict=True
    ):
        embedded = torch.stack(
            [
                sum((w * table.weight[c] for c, w in zip(row, own, strict=True)), torch.zeros(16))
                for row, own in zip(code, weight, strict=True)
            ]
        )  # (N, 16)
        parts.append(embedded @ read.weight.T + read.bias)
    numbers = decoder.read_numbers
    assert numbers is not None
    parts.append(features.numbers @ numbers.weight.T + numbers.bias)
    hidden = torch.cat(parts, dim=1) @ decoder.mix_fields.weight.T + decoder.mix_fields.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = hidden @ decoder.out.weight.T + decoder.out.bias
    found = features.read_by(decoder)
    assert found.shape == (N, DIM + 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_scores_of_mixed_rows_are_mixed_scores() -> None:
    ids, own = id_rows(), some_features().read_by(decoder_of(CONFIG))
    for lam in (0.25, torch.rand(N, generator=draws(5))):
        expected = (1 - lam) * scores(ids) + lam * scores(own)
        torch.testing.assert_close(scores(mix(ids, own, lam)), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_with_lambda_1_scores_depend_on_features_alone() -> None:
    ids, features, decoder = id_rows(), some_features(), decoder_of(CONFIG)
    own = features.read_by(decoder)
    permuted = ids[torch.randperm(N, generator=draws(6))]
    found = scores(mix(ids, own, 1.0))
    assert torch.equal(scores(mix(permuted, own, 1.0)), found)
    assert torch.equal(mix(torch.full_like(ids, -torch.inf), own, 1.0), own)
    assert not torch.equal(scores(mix(permuted, own, 0.9)), scores(mix(ids, own, 0.9)))
    other = some_features(seed=7).read_by(decoder)
    assert not torch.equal(scores(mix(ids, other, 1.0)), found)


@torch.no_grad()
def test_with_lambda_0_scores_ignore_features() -> None:
    ids, decoder = id_rows(), decoder_of(CONFIG)
    own, other = (some_features(seed=seed).read_by(decoder) for seed in (2, 7))
    for lam in (0.0, torch.zeros(N), torch.zeros(())):
        assert torch.equal(mix(ids, own, lam), ids)
        assert torch.equal(mix(ids, other, lam), ids)
        assert torch.equal(mix(ids, torch.full_like(own, torch.inf), lam), ids)


def test_a_lambda_for_each_item() -> None:
    """Of items without history the features alone learn, of those told by their id the id alone."""
    ids = id_rows().requires_grad_()
    own = id_rows(8).requires_grad_()
    lam = torch.tensor([0.0, 1.0, 0.5]).repeat(N)[:N]
    mixed = mix(ids, own, lam)
    assert torch.equal(mixed[::3], ids[::3])
    assert torch.equal(mixed[1::3], own[1::3])
    mixed.sum().backward()
    assert ids.grad is not None
    assert own.grad is not None
    torch.testing.assert_close(ids.grad, (1 - lam).unsqueeze(1).expand_as(ids))
    torch.testing.assert_close(own.grad, lam.unsqueeze(1).expand_as(own))


def test_the_gradient_reaches_every_field() -> None:
    decoder, features = decoder_of(CONFIG), some_features()
    (features.read_by(decoder) * id_rows()).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    # the codes that occur, and no others
    for table, code, weight in zip(decoder.tables, features.codes, features.weights, strict=True):
        moved = table.weight.grad.abs().sum(1) > 0
        assert set(torch.flatten(torch.nonzero(moved)).tolist()) == set(code[weight > 0].tolist())


def test_a_field_that_is_all_missing() -> None:
    """As an encoding gives it: categories are unknown, words and numbers are not there."""
    config = FeatureDecoderConfig(dim=DIM, hidden=24, n_codes=(1, 1, 7), n_numbers=2)
    features = some_features(config)
    missing = torch.zeros(N, 1, dtype=torch.int32)
    without = Features(
        [missing, missing, features.codes[2]],
        [torch.ones(N, 1), torch.zeros(N, 1), features.weights[2]],
        torch.zeros(N, 2),
    )
    decoder = decoder_of(config)
    rows = without.read_by(decoder)
    rows.square().sum().backward()
    unknown, words, there = (table.weight.grad for table in decoder.tables)
    assert torch.isfinite(rows).all()
    assert unknown[0].abs().sum() > 0
    assert not words.any()
    assert there.any()
    # those with the same third field have the same row
    same = (features.codes[2] == features.codes[2][0]).all(1)
    torch.testing.assert_close(rows[same], rows[:1].expand(int(same.sum()), -1))


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    decoder, features = decoder_of(CONFIG), some_features()
    wider = Features(
        [torch.nn.functional.pad(code, (0, 4)) for code in features.codes],
        [torch.nn.functional.pad(weight, (0, 4)) for weight in features.weights],
        features.numbers,
    )
    torch.testing.assert_close(wider.read_by(decoder), features.read_by(decoder))


@torch.no_grad()
def test_chunks_of_the_catalogue_give_what_the_whole_gives() -> None:
    decoder, features = decoder_of(CONFIG), some_features()
    whole = features.read_by(decoder)
    chunks = [features[slice(low, low + 7)].read_by(decoder) for low in range(0, N, 7)]
    torch.testing.assert_close(torch.cat(chunks), whole)
    some = torch.tensor([3, 0, 3, 41])
    torch.testing.assert_close(features[some].read_by(decoder), whole[some])
    assert features[slice(0, 0)].read_by(decoder).shape == (0, DIM + 1)


@pytest.mark.parametrize(("n_codes", "n_numbers"), [((6,), 0), ((), 2), ((3, 1, 8), 6)])
def test_a_decoder_is_built_from_its_sizes_alone(n_codes: tuple[int, ...], n_numbers: int) -> None:
    config = FeatureDecoderConfig(dim=3, hidden=5, n_codes=n_codes, n_numbers=n_numbers)
    again = FeatureDecoderConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    decoder, features = decoder_of(config), some_features(config)
    copy = FeatureDecoder(again)
    copy.load_state_dict(decoder.state_dict())
    assert torch.equal(features.read_by(copy), features.read_by(decoder))


def test_unknown_says_nothing_before_it_is_learned() -> None:
    for table in FeatureDecoder(CONFIG).tables:
        assert not table.weight[0].any()
        assert (table.weight[1:] != 0).all()


def test_a_decoder_without_fields_is_refused() -> None:
    with pytest.raises(ModelError, match="no field to read"):
        FeatureDecoder(FeatureDecoderConfig(dim=3, hidden=5, n_codes=(), n_numbers=0))


def test_lambda_of_items() -> None:
    counts = np.array([0, 0, 1, 9, 990])
    np.testing.assert_array_equal(item_lambda(counts, warm=0.5, n0=None), [1, 1, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(
        item_lambda(counts, warm=0.5, n0=10.0), [1, 1, 10 / 11, 10 / 19, 10 / 1000], rtol=1e-6
    )
    np.testing.assert_array_equal(item_lambda(counts, warm=0.5, n0=0.0), [1, 1, 0, 0, 0])
    assert item_lambda(counts, warm=0.0, n0=None).dtype == np.float32


@pytest.mark.parametrize(
    ("warm", "n0"), [(-0.1, None), (1.5, None), (math.nan, None), (0.5, -1.0), (0.5, math.inf)]
)
def test_a_lambda_that_is_none_is_refused(warm: float, n0: float | None) -> None:
    with pytest.raises(ModelError, match="item features"):
        item_lambda(np.array([0, 1]), warm=warm, n0=n0)


def test_vectors_of_categories_are_learned_from_half_of_the_items() -> None:
    """Rows that are a sum over brand and genres: those of items that nobody trained on come out."""
    generator = draws(9)
    items, brands, genres = 400, 10, 6
    brand = torch.randint(1, brands + 1, (items, 1), generator=generator)
    genre = torch.rand(items, genres, generator=generator).argsort(1)[:, :2] + 1  # two of each
    features = Features(
        [brand, genre],
        [torch.ones(items, 1), torch.full((items, 2), 1 / math.sqrt(2))],
        torch.zeros(items, 0),
    )
    true_brand = torch.randn(brands + 1, DIM + 1, generator=generator)
    true_genre = torch.randn(genres + 1, DIM + 1, generator=generator)
    wanted = true_brand[brand[:, 0]] + true_genre[genre].sum(1)  # (items, D + 1)
    config = FeatureDecoderConfig(dim=DIM, hidden=64, n_codes=(brands + 1, genres + 1), n_numbers=0)
    decoder = decoder_of(config)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.01)
    half = torch.arange(items // 2)
    for _ in range(300):
        optimiser.zero_grad()
        loss = (features[half].read_by(decoder) - wanted[half]).square().mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        missed = (
            (features[slice(items // 2, None)].read_by(decoder) - wanted[items // 2 :])
            .square()
            .mean()
        )
    assert missed < 0.1 * wanted[items // 2 :].var()
