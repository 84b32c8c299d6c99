"""Tables updated by the rows of a batch, and whole."""

import pytest
import torch

from recsys_core.training.dense_table import DenseTable
from recsys_core.training.row_table import RowTable


def step(table: RowTable | DenseTable, *indices: list[int]) -> None:
    parts = table.gather([torch.tensor(index) for index in indices])
    sum(part.square().sum() for part in parts).backward()
    table.step()


TABLES = pytest.mark.parametrize("kind", [RowTable, DenseTable])


@TABLES
def test_gather_gives_the_rows(kind: type[RowTable | DenseTable]) -> None:
    values = torch.arange(12.0).view(6, 2)
    first, second = kind(values.clone(), learning_rate=0.1).gather(
        [torch.tensor([[5, 1], [5, 0]]), torch.tensor([2])]
    )
    torch.testing.assert_close(first.detach(), values[torch.tensor([[5, 1], [5, 0]])])
    torch.testing.assert_close(second.detach(), values[2:3])


def test_only_touched_rows_move() -> None:
    values = torch.ones(6, 2)
    table = RowTable(values.clone(), learning_rate=0.1)
    step(table, [1, 3], [3])
    moved = (table.values.detach() != values).any(dim=1)
    assert moved.tolist() == [False, True, False, True, False, False]


def test_a_row_gathered_twice_gets_both_gradients() -> None:
    """Against a dense table under the same optimiser, which PyTorch calls SparseAdam."""
    table = RowTable(torch.ones(4, 2), learning_rate=0.1)
    dense = torch.nn.Embedding.from_pretrained(torch.ones(4, 2), freeze=False, sparse=True)
    optimiser = torch.optim.SparseAdam(dense.parameters(), lr=0.1)
    for rows in ([1, 1, 2], [3, 1], [2]):
        step(table, rows)
        dense(torch.tensor(rows)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.testing.assert_close(table.values.detach(), dense.weight.detach())


@TABLES
def test_state_goes_on_bit_for_bit(kind: type[RowTable | DenseTable]) -> None:
    whole, first = (kind(torch.ones(5, 3), learning_rate=0.1) for _ in range(2))
    for rows in ([1, 2], [2, 4]):
        step(whole, rows)
        step(first, rows)
    second = kind(torch.zeros(5, 3), learning_rate=0.1)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    for rows in ([2, 3], [1]):
        step(whole, rows)
        step(second, rows)
    assert torch.equal(whole.values, second.values)


@TABLES
def test_what_is_forgotten_moves_nothing(kind: type[RowTable | DenseTable]) -> None:
    table, other = (kind(torch.ones(5, 3), learning_rate=0.1) for _ in range(2))
    (rows,) = table.gather([torch.tensor([1, 4])])
    rows.sum().backward()
    table.forget()
    assert torch.equal(table.values, torch.ones(5, 3))
    step(table, [2])
    step(other, [2])
    assert torch.equal(table.values, other.values)


def test_the_whole_table_moves_as_under_adam() -> None:
    table = DenseTable(torch.ones(4, 2), learning_rate=0.1)
    dense = torch.nn.Parameter(torch.ones(4, 2))
    optimiser = torch.optim.Adam([dense], lr=0.1)
    for rows in ([1, 1, 2], [3]):
        step(table, rows)
        dense[rows].square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.testing.assert_close(table.values.detach(), dense.detach())
    table.set_learning_rate(0.0)
    before = table.values.detach().clone()
    step(table, [1])
    assert torch.equal(table.values, before)
