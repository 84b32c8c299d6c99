"""The multiply-adds of a training step, counted from the sizes of its matrix products.

    a target                 read W D + shell + project D W + score S D
    the shell, each block    cell + gate W^2 + out W^2 + feed-forward 2 f W^2
    cell                     gru 6 W^2     lstm 8 W^2     lru 3 W^2

W is the hidden width, D that of item vectors, f the feed-forward factor, S how many items a target
is scored against. A product has two gradients, each of its own size: three times that in all. Sums,
gates, norms, dropout, optimisers, padding and the one event that is read before a window are not
counted, so a share of the machine's product rate falls short of what the processor does.
"""

CELLS = {"gru": 6, "lstm": 8, "lru": 3}
"""Multiply-adds of a recurrent cell for one event, in units of its squared width."""

PRODUCTS = 3
"""Each product forward, and the two of its gradient."""


def ours_per_target(backbone: str, *, width: int, dim: int, ffn: int, scored: int) -> int:
    """Multiply-adds of one target of a network of one block that reads no times.

    >>> ours_per_target("gru", width=10, dim=10, ffn=2, scored=7)
    4410
    """
    block = (CELLS[backbone] + 1 + 1 + 2 * ffn) * width**2
    return PRODUCTS * (width * dim + block + dim * width + scored * dim)


def plain_gru_per_target(*, width: int, scored: int) -> int:
    """Those of `nn.GRU` between an embedding and an output layer of its own width.

    >>> plain_gru_per_target(width=10, scored=7)
    2010
    """
    return PRODUCTS * (CELLS["gru"] * width**2 + scored * width)
