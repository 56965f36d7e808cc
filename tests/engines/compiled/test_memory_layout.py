"""The last bits of a compiled loop do not depend on where in memory its arrays happen to be.

A loop is compiled in two ways where it could write to what it reads: in vector registers, and one by one for arrays that
overlap. Which way is taken is decided by addresses. Where the compiler knows the range of an index only roughly, arrays
that lie beside each other look as if they overlapped, and one run differed from the next in its last bits.
"""

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="needs the extra 'speed'")
from fedvlr_plugin.engines.compiled import linear, private_items  # noqa: E402

LAYOUTS = 200


def placed(arrays, source):
    """Copies, beside each other in one buffer, in any order and with small gaps."""
    bytes_of = {name: array.nbytes for name, array in arrays.items()}
    buffer = np.empty(sum(bytes_of.values()) + 64 * len(arrays) + 64, np.uint8)
    at = -buffer.ctypes.data % 64
    out = {}
    for name in source.permutation(list(arrays)):
        at += -at % 8 + 8 * int(source.integers(0, 3))
        array = arrays[name]
        out[name] = buffer[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        out[name][...] = array
        at += array.nbytes
    return out


@numba.njit
def room(size):
    return np.empty(size, np.uint8)


def stirred(source, sizes):
    """Frees pieces of the sizes that the loops ask for, in any order, so that their own arrays fall anywhere."""
    held = [room(int(size)) for size in source.choice(sizes, 40)]
    return [held[i] for i in source.permutation(40)]


def outcomes(call, arrays, written, sizes):
    source, seen = np.random.default_rng(0), {name: set() for name in written}
    for _ in range(LAYOUTS):
        pieces = stirred(source, sizes)
        here = placed(arrays, source)
        while pieces:
            pieces.pop()
        call(here)
        for name in written:
            seen[name].add(here[name].tobytes())
    return {name: len(bits) for name, bits in seen.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [8, 24])
@pytest.mark.parametrize("most", [12, 40, 150])
def test_sampled_products(dtype, width, most):
    source = np.random.default_rng(most)
    counts = np.array([most, most // 2 + 1, 5, 1, 0])
    n, b, width_of = counts.sum(), len(counts), np.dtype(dtype).itemsize
    arrays = {
        "q": source.standard_normal((b, width)).astype(dtype),
        "bias": source.standard_normal(b).astype(dtype),
        "table": source.standard_normal((30, width)).astype(dtype),
        "items": source.integers(0, 30, n),
        "labels": source.integers(0, 2, n).astype(dtype),
        "indptr": np.concatenate([[0], np.cumsum(counts)]),
        "share": (1 / np.maximum(counts, 1)).astype(dtype),
        "alpha": source.random(b).astype(dtype),
        "sums": source.standard_normal((30, width)).astype(dtype),
        "losses": np.zeros(b, dtype),
        "grad_q": np.zeros((b, width), dtype),
        "grad_bias": np.zeros(b, dtype),
    }
    written = ("sums", "losses", "grad_q", "grad_bias")
    found = outcomes(lambda a: linear.sampled(**a), arrays, written, [linear.CHUNK * width_of])
    assert found == dict.fromkeys(written, 1)
    full = {k: v for k, v in arrays.items() if k in ("items", "labels", "indptr", "share", "losses", "grad_bias")}
    full |= {"scores": source.standard_normal((b, 30)).astype(dtype), "out": np.zeros((b, 30), dtype)}
    written = ("losses", "grad_bias", "out")
    assert outcomes(lambda a: linear.residuals(**a), full, written, [linear.CHUNK * width_of]) == dict.fromkeys(
        written, 1
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("most", [12, 40, 150])
def test_a_round_over_private_rows(dtype, views, most):
    source = np.random.default_rng(most)
    counts, d, n_items = np.array([most, most // 2 + 1, 5, 1]), 8, 50
    b, n = len(counts), int(counts.sum())
    n_hidden, width = (6, views * d) if views > 1 else (0, d)
    n_params = n_hidden * (width + 1) + views * (n_hidden + 1) if n_hidden else 0
    indptr = np.concatenate([[0], np.cumsum(counts)])
    items = source.integers(0, n_items, n)
    keys = [np.unique(items[indptr[c] : indptr[c + 1]]) for c in range(b)]
    key_indptr = np.concatenate([[0], np.cumsum([len(k) for k in keys])])

    def group(name, *shape):
        value = source.standard_normal(shape).astype(dtype)
        return {name: value, f"{name}1": value * dtype(0.1), f"{name}2": value**2, f"{name}n": np.arange(b)}

    arrays = {
        "items": items,
        "labels": source.integers(0, 2, n).astype(dtype),
        "begins": np.array([0]),
        "indptr": indptr[None],
        "keys": np.concatenate(keys),
        "places": source.permutation(key_indptr[-1]),
        "key_indptr": key_indptr,
        "table": source.standard_normal((n_items, width)).astype(dtype),
        "sums": source.standard_normal((n_items, width)).astype(dtype),
        **group("store", key_indptr[-1], d),
        **group("head", b, d + 1),
        **group("router", b, n_params),
        "pooled": source.standard_normal((b, width if n_hidden else 0)).astype(dtype),
        "grad_pooled": np.zeros((b, width if n_hidden else 0), dtype),
        "alpha": source.random(b).astype(dtype),
        "penalty": np.array([0.3, 0.2, 0.8], dtype),
        "losses": np.zeros(b, dtype),
    }
    written = ["sums", "grad_pooled", "losses", *(f"{g}{k}" for g in ("store", "head", "router") for k in ("", 1, 2))]

    def call(a):
        private = [private_items.Private(*(a[f"{g}{k}"] for k in ("", 1, 2, "n"))) for g in ("store", "head", "router")]
        private_items.train(
            private_items.Samples(a["items"], a["labels"], a["begins"], a["indptr"]),
            private_items.Touched(a["keys"], a["places"], a["key_indptr"]),
            private_items.Shared(a["table"], a["sums"]),
            *private, n_hidden, a["pooled"], a["grad_pooled"], a["alpha"], a["penalty"], (0.05, 0.04, 0.03), a["losses"],
        )  # fmt: skip

    item = np.dtype(dtype).itemsize
    sizes = [
        8 * most,
        item * most,
        item * most,
        item * private_items.CHUNK,
        8 * private_items.CHUNK,
        item * d,
        item * width,
    ]
    assert outcomes(call, arrays, written, sizes) == dict.fromkeys(written, 1)
