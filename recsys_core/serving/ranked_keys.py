"""User, score and item in one whole number, so that one sort ranks the items of many users.

    key    user | score, the best first | item       as many bits as users take | 32 | the rest

Sorting unsigned numbers is by far the quickest that NumPy does; of equal scores the lower item
comes first by itself.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCORE_BITS = 32
SIGN = np.uint32(1 << 31)

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]


def most_users(n_items: int) -> int:
    """How many users a key has room for where items are numbered below `n_items`: a power of two.

    >>> most_users(100_000), most_users(10_000_000)
    (32768, 256)
    """
    return 1 << max(0, 64 - SCORE_BITS - max(1, (n_items - 1).bit_length()))


@dataclass(frozen=True)
class Keys:
    """How the bits are shared out among `users`, a power of two."""

    users: int

    @property
    def _user_shift(self) -> np.uint64:
        return np.uint64(64 - (self.users.bit_length() - 1))

    @property
    def _score_shift(self) -> np.uint64:
        return np.uint64(self._user_shift - SCORE_BITS)

    def pack(self, user: Int64, score: Float32, item: Int64) -> UInt64:
        """One key each. (C,) three times to (C,)"""
        ranked = _descending(score).astype(np.uint64)
        keys = (ranked << self._score_shift) | item.astype(np.uint64)
        if self.users > 1:  # a shift by all 64 bits is no shift at all
            keys |= user.astype(np.uint64) << self._user_shift
        return keys

    def scores(self, keys: UInt64) -> Float32:
        """The scores in keys. (C,)"""
        ranked = (keys >> self._score_shift).astype(np.uint32)
        return np.where(ranked & SIGN, ranked, ~ranked & ~SIGN).view(np.float32)

    def items(self, keys: UInt64) -> Int64:
        """The items in keys. (C,)"""
        mask = np.uint64((1 << int(self._score_shift)) - 1)
        return (keys & mask).astype(np.int64)

    def starts(self, ordered: UInt64) -> Int64:
        """Where each user's keys begin among ordered ones, and where the last ones end. (U + 1,)"""
        first = np.zeros(self.users, dtype=np.uint64)
        if self.users > 1:
            first = np.arange(self.users, dtype=np.uint64) << self._user_shift
        return np.append(np.searchsorted(ordered, first), len(ordered))


def _descending(score: Float32) -> UInt32:
    """Whole numbers in the opposite order of the scores; 0 and -0 are one."""
    bits = (score + np.float32(0)).view(np.uint32)
    # of a negative number the magnitude already rises as the number falls
    return np.where(bits & SIGN, bits, ~(bits | SIGN))
