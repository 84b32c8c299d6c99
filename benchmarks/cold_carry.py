"""What is known of warm items, carried over to cold ones by their features: a matrix (C, V).

    by genres       S_ij = cos(g_i, g_j)^power, each row divided by its sum
    by a ridge      S = F_cold (F^T F + l2 I)^-1 F^T

The second is linear in columns made wide enough to say something: the codes that an item has, pairs
of them, bumps along each number, and these times the codes. S times warm rows are rows of cold
items, and scores of warm items times S^T are scores of cold ones. It is the feature tower of 2TS
(section 1.5 of its specification), regressed onto the table of items in closed form.
"""

import numpy as np
import numpy.typing as npt

from recsys_core.data.features import FARTHEST, Encoded, FeatureEncoding

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

STEP = 0.25
"""Standard deviations of a number from one bump to the next; those that are multiplied with codes
lie four times as far apart. A bump is as wide as its step."""


def by_genres(warm: Encoded, cold: Encoded, encoding: FeatureEncoding, *, power: float) -> Float32:
    """By the cosine of lists of categories alone; an item like none has zeros. (C, V)"""
    (place,) = [at for at, bag in enumerate(encoding.bags) if bag.kind == "multi_categorical"]
    n_codes = encoding.n_codes[place]
    here, there = (
        _unit(_has(one.codes[place], one.weights[place], n_codes)) for one in (cold, warm)
    )
    near = (here @ there.T) ** power  # (C, V)
    return (near / np.maximum(near.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)


def by_ridge(warm: Encoded, cold: Encoded, encoding: FeatureEncoding, *, l2: float) -> Float32:
    """By all that the encoding tells. (C, V)"""
    wide, asked = _wide(warm, encoding), _wide(cold, encoding)  # (V, F), (C, F)
    gram = wide.T @ wide
    gram[np.diag_indices(len(gram))] += l2
    return (asked @ np.linalg.solve(gram, wide.T)).astype(np.float32)


def _wide(features: Encoded, encoding: FeatureEncoding) -> Float64:
    """One row for each item, PAD left out. (N, F)"""
    bags = [
        _has(codes, weights, n_codes)
        for codes, weights, n_codes in zip(
            features.codes, features.weights, encoding.n_codes, strict=True
        )
    ]
    columns = [np.ones((len(features.numbers) - 1, 1)), *bags]
    lists = [has for has, bag in zip(bags, encoding.bags, strict=True) if bag.kind != "text"]
    for has in lists:
        first, second = np.triu_indices(has.shape[1], 1)
        columns.append(has[:, first] * has[:, second])
    for at in range(0, encoding.n_numbers, 2):
        value, is_there = features.numbers[1:, at], features.numbers[1:, at + 1]
        columns.append(_bumps(value, is_there, step=STEP))
        far = _bumps(value, is_there, step=4 * STEP)  # (N, G)
        columns += [(has[:, :, None] * far[:, None, :]).reshape(len(has), -1) for has in lists]
    return np.concatenate(columns, axis=1)


def _bumps(value: Float32, is_there: Float32, *, step: float) -> Float64:
    """How near a number lies to each of a row of centres; all 0 where it is missing. (N, G)"""
    centres = np.arange(-FARTHEST, FARTHEST + step, step)
    near: Float64 = np.exp(-0.5 * ((value[:, None] - centres) / step) ** 2) * is_there[:, None]
    return near


def _has(codes: npt.NDArray[np.int32], weights: Float32, n_codes: int) -> Float64:
    """1 where an item has a code, PAD left out. (N, n_codes)"""
    has = np.zeros((len(codes) - 1, n_codes))
    item, place = np.nonzero(weights[1:])
    has[item, codes[1:][item, place]] = 1.0
    return has


def _unit(rows: Float64) -> Float64:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
