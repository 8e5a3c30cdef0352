"""Random numbers of Philox 4x32-10 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3)."""

import numpy as np

_ROUNDS = 10
_FACTORS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_LOW = np.uint64(0xFFFFFFFF)
_SCRAMBLING = np.array([0x3EC8F720, 0x02461E29], np.uint32)
"""The key by which TensorFlow turns a seed into a key."""


def philox(counter_n4: np.ndarray, key_2: np.ndarray) -> np.ndarray:
    """Four random words for each counter, uint32 (N, 4) as the counters are."""
    words = counter_n4
    key = key_2
    for _ in range(_ROUNDS):
        products = words[:, ::2].astype(np.uint64) * _FACTORS
        high, low = (products >> np.uint64(32)).astype(np.uint32), (products & _LOW).astype(np.uint32)
        words = np.stack(
            [high[:, 1] ^ words[:, 1] ^ key[0], low[:, 1], high[:, 0] ^ words[:, 3] ^ key[1], low[:, 0]], 1
        )
        key = key + _KEY_STEPS
    return words


def uniform_as_in_tensorflow(count: int) -> np.ndarray:
    """So many of the float32 numbers in [0, 1) that `tf.random.stateless_uniform` draws for the seed [0, 0].

    Of each word the lower 23 bits count.
    """
    (drawn,) = philox(np.zeros((1, 4), np.uint32), _SCRAMBLING)
    counters = np.zeros((-(-count // 4), 4), np.uint32)
    counters[:, 0] = np.arange(len(counters))
    counters[:, 2:] = drawn[2:]
    words = philox(counters, drawn[:2]).reshape(-1)[:count]
    return (words & np.uint32(0x7FFFFF)).astype(np.float32) / np.float32(1 << 23)
