"""Tables of which a batch touches few rows."""

import torch

from recsys_core.training.row_table import RowTable


def step(table: RowTable, *indices: list[int]) -> None:
    parts = table.gather([torch.tensor(index) for index in indices])
    sum(part.square().sum() for part in parts).backward()
    table.step()


def test_gather_gives_the_rows() -> None:
    values = torch.arange(12.0).view(6, 2)
    first, second = RowTable(values.clone(), learning_rate=0.1).gather(
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


def test_state_goes_on_bit_for_bit() -> None:
    whole, first = (RowTable(torch.ones(5, 3), learning_rate=0.1) for _ in range(2))
    for rows in ([1, 2], [2, 4]):
        step(whole, rows)
        step(first, rows)
    second = RowTable(torch.zeros(5, 3), learning_rate=0.1)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    for rows in ([2, 3], [1]):
        step(whole, rows)
        step(second, rows)
    assert torch.equal(whole.values, second.values)
