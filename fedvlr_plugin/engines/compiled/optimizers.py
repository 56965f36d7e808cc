"""One local step of Adam, or of SGD, on one row of numbers; the equations are in `optimizers`."""

from __future__ import annotations

import math

from fedvlr_plugin.engines.compiled.jit import Float, Floats, part
from fedvlr_plugin.engines.optimizers import BETA1, BETA2, EPS


@part
def rates(lr: float, age: int, kind: Floats) -> tuple[Float, Float]:
    """lr / (1 - b1^age) and 1 / sqrt(1 - b2^age), as numbers of the kind of `kind`."""
    return kind.dtype.type(lr / (1.0 - BETA1**age)), kind.dtype.type(1.0 / math.sqrt(1.0 - BETA2**age))


@part
def descend(values: Floats, first: Floats, second: Floats, row: int, grad: Floats, lr: float, age: int) -> None:
    """Step `values[row]` by `grad`; `age` counts this step. SGD where `first` has no rows.

    A loop for each array that is written, or none of them would run in vector registers.
    """
    kind = values.dtype.type
    if len(first) == 0:
        plain = kind(lr)
        for k in range(len(grad)):
            values[row, k] -= plain * grad[k]
        return
    keep1, take1, keep2, take2, eps = kind(BETA1), kind(1.0 - BETA1), kind(BETA2), kind(1.0 - BETA2), kind(EPS)
    rate, root = rates(lr, age, values)
    for k in range(len(grad)):
        first[row, k] = keep1 * first[row, k] + take1 * grad[k]
    for k in range(len(grad)):
        second[row, k] = keep2 * second[row, k] + take2 * grad[k] * grad[k]
    for k in range(len(grad)):
        values[row, k] -= rate * first[row, k] / (math.sqrt(second[row, k]) * root + eps)
