"""Wide columns of item features: each is what its name says, whatever the padding and the chunk."""

import numpy as np
import pytest
import torch

from recsys_core.models import wide_features
from recsys_core.models.item_decoder import FeatureDecoder, FeatureDecoderConfig
from recsys_core.models.item_features import ItemFeatures, feature_rows, new_item_rows
from recsys_core.models.wide_features import Atoms, WideRows, columns_of

ATOMS = Atoms(n_codes=(3, 4), n_numbers=2)
BUMPS, BROAD = 41, 11
"""From -5 to 5 standard deviations, a quarter and a whole one apart."""

FEATURES = ItemFeatures(
    codes=(
        torch.tensor([[1], [2], [0], [0]], dtype=torch.int32),
        torch.tensor([[1, 3], [3, 0], [0, 0], [0, 0]], dtype=torch.int32),
    ),
    weights=(
        torch.tensor([[1.0], [1.0], [1.0], [0.0]]),  # of the third unknown, of PAD nothing
        torch.tensor([[0.7, 0.7], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    ),
    numbers=torch.tensor([[0.25, 1.0], [-5.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
)


def atoms_of(features: ItemFeatures) -> torch.Tensor:
    return ATOMS.of(features.codes, features.weights, features.numbers)


def test_atoms_say_which_codes_there_are_and_how_near_a_number_is() -> None:
    found = atoms_of(FEATURES)
    assert (ATOMS.first_bump, ATOMS.first_broad) == (8, 8 + BUMPS)
    assert found.shape == (4, ATOMS.total) == (4, 8 + BUMPS + BROAD)
    expected = [
        [1, 0, 1, 0, 0, 1, 0, 1],  # one; first bag: unknown, 1, 2; second: unknown, 1, 2, 3
        [1, 0, 0, 1, 0, 0, 0, 1],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert found[:, :8].tolist() == expected
    near, broad = found[:, 8 : 8 + BUMPS], found[:, 8 + BUMPS :]
    centres = np.linspace(-5, 5, BUMPS)
    np.testing.assert_allclose(near[0], np.exp(-0.5 * ((0.25 - centres) / 0.25) ** 2), atol=1e-6)
    assert (near[0].argmax(), near[1].argmax(), broad[1].argmax()) == (21, 0, 0)
    np.testing.assert_allclose(broad[0, 5], np.exp(-0.5 * 0.25**2), rtol=1e-6)
    assert not found[2:, 8:].any(), "a number that is missing is near to nothing"


def test_columns_are_products_of_two_atoms() -> None:
    atoms = atoms_of(FEATURES)
    columns = torch.tensor([[0, 0], [0, 2], [2, 7], [3, 8 + BUMPS]])
    found = columns_of(atoms, columns)
    assert found[:, :3].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert torch.equal(found[:, 3], atoms[:, 3] * atoms[:, 8 + BUMPS])


def test_rows_are_linear_in_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(1)
    wide = WideRows(ATOMS, columns=20, dim=5)
    told = (FEATURES.codes, FEATURES.weights, FEATURES.numbers)
    assert not wide(*told).any(), "nothing before a regression"
    wide.columns.copy_(torch.randint(ATOMS.total, (20, 2), generator=draws))
    wide.coefficients.copy_(torch.randn(20, 6, generator=draws))
    found = wide(*told)
    torch.testing.assert_close(
        found, columns_of(atoms_of(FEATURES), wide.columns) @ wide.coefficients
    )
    padded = tuple(torch.nn.functional.pad(one, (0, 3)) for one in FEATURES.codes)
    weights = tuple(torch.nn.functional.pad(one, (0, 3)) for one in FEATURES.weights)
    assert torch.equal(wide(padded, weights, FEATURES.numbers), found)
    monkeypatch.setattr(wide_features, "CHUNK", 3)
    torch.testing.assert_close(wide(*told), found)
    assert wide(*([one[:0] for one in part] for part in told[:2]), told[2][:0]).shape == (0, 6)


def test_a_decoder_adds_them_to_what_it_learned_where_an_item_is_new() -> None:
    config = FeatureDecoderConfig(dim=5, hidden=4, n_codes=(3, 4), n_numbers=2)
    wider = FeatureDecoderConfig(dim=5, hidden=4, n_codes=(3, 4), n_numbers=2, columns=2)
    assert FeatureDecoderConfig.from_json(wider.to_json()) == wider
    without, decoder = FeatureDecoder(config), FeatureDecoder(wider)
    assert decoder.wide is not None
    names = set(decoder.state_dict()) - set(without.state_dict())
    assert names == {"wide.columns", "wide.coefficients"}
    assert not names & {name for name, _ in decoder.named_parameters()}, "no gradient reaches them"
    decoder.wide.columns.copy_(torch.tensor([[0, 0], [0, 7]]))
    decoder.wide.coefficients[1] = 3.0
    trained, new = feature_rows(decoder, FEATURES), new_item_rows(decoder, FEATURES)
    added = torch.tensor([3.0, 3.0, 0.0, 0.0]).unsqueeze(1).expand(4, 6)  # who has code 3
    torch.testing.assert_close(new, trained + added)
    assert torch.equal(new_item_rows(without, FEATURES), feature_rows(without, FEATURES))
