"""How weights follow their gradients."""

import pytest
import torch

from recsys_core.training.optimisers import (
    load_optimiser_state,
    network_optimiser,
    optimiser_state,
    rate_factor,
    set_learning_rate,
)
from tests.serving_world import make_model


def test_matrices_decay_and_nothing_else() -> None:
    """With a gradient of zero a weight moves by its decay alone."""
    network = make_model(backbone="lru").active
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimiser = network_optimiser(network, learning_rate=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moved = {
        name for name, value in network.named_parameters() if not torch.equal(value, before[name])
    }
    assert {"read.weight", "project.weight", "stack.blocks.0.backbone.gates.weight"} <= moved
    kept = set(before) - moved
    assert {"gamma", "start", "project.bias", "stack.norm.weight"} <= kept
    assert "stack.blocks.0.backbone.forget" in kept
    for name in moved:
        torch.testing.assert_close(dict(network.named_parameters())[name], 0.95 * before[name])


def test_rates_rise_within_the_first_epoch_and_fall_from_one_to_the_next() -> None:
    first = [rate_factor(1, step, steps=10, warmup=0.4, decay=0.5) for step in range(10)]
    assert first == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])
    for step in (0, 9):
        assert rate_factor(3, step, steps=10, warmup=0.4, decay=0.5) == 0.25
    assert rate_factor(1, 0, steps=10, warmup=0.0, decay=0.5) == 1.0


def test_a_network_goes_on_bit_for_bit_from_its_state() -> None:
    def learn(model, optimiser, seeds):
        for seed in seeds:
            draws = torch.Generator().manual_seed(seed)
            for parameter in model.active.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draws)
            set_learning_rate(optimiser, 0.01 / seed)
            optimiser.step()

    def fresh():
        model = make_model()
        return model, network_optimiser(model.active, learning_rate=0.1, weight_decay=0.1)

    whole, first = fresh(), fresh()
    learn(*whole, (1, 2, 3, 4))
    learn(*first, (1, 2))
    model, optimiser = fresh()
    model.load_state_dict(first[0].state_dict())
    state = {name: value.clone() for name, value in optimiser_state(first[1]).items()}
    load_optimiser_state(optimiser, state | {"values": torch.ones(1)})
    learn(model, optimiser, (3, 4))
    for name, value in whole[0].active.named_parameters():
        assert torch.equal(value, dict(model.active.named_parameters())[name]), name
