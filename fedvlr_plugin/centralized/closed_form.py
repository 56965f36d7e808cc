"""ItemKNN and EASE: recommenders in closed form, for comparison; they need all histories in one place.

    ItemKNN   S_ij = c_ij / (sqrt(c_i c_j) + shrinkage), the k largest of each i kept;   s_ui = sum_{j in hist_u} S_ij
    EASE      P = (G + a T T^T + lambda I)^-1,  B_ij = -P_ij / P_jj, B_ii = 0;           s_u = x_u B

c_ij counts the users who have both items, G = X^T X holds all c_ij, T are content vectors of the items as side
information (a = 0 without it). EASE: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019; the
neighbourhood model with shrinkage as in Ferrari Dacrema et al., RecSys 2019.

Memory. EASE holds a single matrix `[n, n]`: the counts stay in its upper triangle, and the lower triangle is filled,
factored and inverted in place for each lambda. It is float64 up to 20,000 items and float32 above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.linalg import lapack

from fedvlr_plugin.data.interactions import IntArray, Interactions
from fedvlr_plugin.errors import ConfigError, FedVLRError
from fedvlr_plugin.evaluation.content import UserScores, history_matrix

FloatArray = npt.NDArray[np.float64]
AnyFloat = npt.NDArray[np.float64] | npt.NDArray[np.float32]
DECIMALS = 10  # of scores in float64; 5 in float32
MOST_ITEMS_FLOAT64 = 20_000
BLOCK_ITEMS = 512
LAMBDAS: tuple[float, ...] = tuple(float(f"{10 ** (k / 4):.4g}") for k in range(17))
NEIGHBOURS: tuple[float, ...] = (2, 3, 5, 10, 20, 50, 100, 200, 500)
SHRINKAGES: tuple[float, ...] = (0, 1, 5, 10, 50, 100, 500)


def matrix_bytes(n_items: int) -> int:
    """Compute the size in bytes of the matrix `[n, n]` that EASE needs, for n = `n_items`."""
    return n_items * n_items * np.dtype(_dtype(n_items)).itemsize


def check_memory(row: str, n_items: int, budget: int) -> None:
    """Check, before anything is computed, that the matrix of EASE fits the memory budget.

    Args:
        row: name for the message.
        n_items: n.
        budget: bytes that may be used.

    Raises:
        ConfigError: the matrix does not fit.
    """
    need = matrix_bytes(n_items)
    if need > budget:
        raise ConfigError(
            f"row '{row}' needs one matrix of {n_items:,} x {n_items:,} items, {need / 1024**3:.1f} GiB, above the "
            f"memory budget of {budget / 1024**3:.1f} GiB; raise it (--memory-budget {need / 1024**3 + 0.1:.1f}G), "
            "prepare the data with fewer items, or leave the row out"
        )


def _dtype(n_items: int) -> type[np.float64] | type[np.float32]:
    return np.float64 if n_items <= MOST_ITEMS_FLOAT64 else np.float32


def _zeros(n: int, m: int, double: bool) -> AnyFloat:
    """Create zeros `[n, m]` in Fortran order, which LAPACK can change in place."""
    return np.zeros((n, m), np.float64, "F") if double else np.zeros((n, m), np.float32, "F")


def blocks(n: int, size: int = BLOCK_ITEMS) -> list[slice]:
    """Split the range 0..n - 1 into consecutive slices of at most `size`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class GramMatrix:
    """The matrix G = X^T X and a regularised inverse of it, held in one array `[n, n]`.

    Args:
        n_items: n. All counts are zero until `put` sets them.

    Attributes:
        counts: `[n]`, the diagonal of G.
    """

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items
        self.dtype = _dtype(n_items)
        self.counts = np.zeros(n_items)
        self._matrix = _zeros(n_items, n_items, self.dtype is np.float64)
        self._inverted = False

    def put(self, columns: slice, values: AnyFloat) -> None:
        """Set columns of the upper triangle.

        Args:
            columns: a slice of consecutive items.
            values: entries of G in these columns, from the first item to the last of the columns,
                `[columns.stop, len(columns)]`.
        """
        self._matrix[: columns.stop, columns] = values
        self.counts[columns] = values[columns.start : columns.stop].diagonal()

    def put_column(self, column: int, rows: IntArray, values: FloatArray) -> None:
        """Set some entries of one column of the upper triangle; the others do not change.

        Args:
            column: the item.
            rows: items `[m]`, ascending; the last one is `column`.
            values: entries `[m]`.
        """
        self._matrix[rows, column] = values
        self.counts[column] = values[-1]

    def invert(self, lam: float, side: FloatArray | None = None, weight: float = 0.0) -> None:
        """Compute P = (G + weight * side side^T + lam I)^-1; read it with `rows` and `diagonal`.

        Args:
            lam: lambda, above 0.
            side: T `[n, m]`, or None.
            weight: a, at least 0.

        Raises:
            FedVLRError: the matrix is not positive definite; noise on G can cause this.
        """
        a = self._matrix
        for columns in blocks(self.n_items):
            corner = np.triu(a[columns, columns], 1)
            filled = corner + corner.T
            filled[np.diag_indices_from(filled)] = self.counts[columns] + lam
            below = slice(columns.stop, self.n_items)
            if side is not None and weight > 0.0:
                filled += (weight * (side[columns] @ side[columns].T)).astype(self.dtype)
                a[below, columns] = a[columns, below].T + (weight * (side[below] @ side[columns].T)).astype(self.dtype)
            else:
                a[below, columns] = a[columns, below].T
            a[columns, columns] = np.tril(filled) + corner
        double = self.dtype is np.float64
        factor, invert = (lapack.dpotrf, lapack.dpotri) if double else (lapack.spotrf, lapack.spotri)
        # clean=0 leaves the counts above the diagonal alone; the array is in Fortran's order, so nothing is copied
        result, info = factor(a, lower=1, overwrite_a=1, clean=0)
        if info == 0:
            result, info = invert(result, lower=1, overwrite_c=1)
        if info != 0:
            raise FedVLRError(
                f"the matrix of co-counts plus lambda = {lam:g} cannot be inverted (it is not positive definite); "
                "use a larger lambda, or less noise"
            )
        self._matrix = result
        self._inverted = True

    @property
    def diagonal(self) -> FloatArray:
        """Diagonal of P, `[n]`."""
        return self._matrix.diagonal().astype(np.float64)

    def rows(self, chosen: slice) -> AnyFloat:
        """Return rows of P, made from its lower triangle.

        Args:
            chosen: a slice of consecutive items.

        Returns:
            `[len(chosen), n]`.

        Raises:
            FedVLRError: `invert` has not been called.
        """
        if not self._inverted:
            raise FedVLRError("no inverse has been computed yet: call invert first")
        a = self._matrix
        out = _zeros(chosen.stop - chosen.start, self.n_items, self.dtype is np.float64)
        out[:, : chosen.start] = a[chosen, : chosen.start]
        corner = np.tril(a[chosen, chosen])
        out[:, chosen] = corner + np.tril(corner, -1).T
        out[:, chosen.stop :] = a[chosen.stop :, chosen].T
        return out


def count_pairs(interactions: Interactions) -> GramMatrix:
    """Compute G of all training histories."""
    gram = GramMatrix(interactions.n_items)
    histories = history_matrix(interactions).tocsc()
    for columns in blocks(interactions.n_items):
        gram.put(columns, (histories[:, : columns.stop].T @ histories[:, columns]).toarray())
    return gram


def ease_scores(gram: GramMatrix, histories: sp.csr_matrix) -> UserScores:
    """Return a function that computes the scores x_u B of EASE; it reads the inverse in `gram` at each call.

    Scores are rounded to `DECIMALS`: items that are tied in exact arithmetic (the same users have them) stay tied, whatever
    the order in which the linear algebra adds. Without it the number of threads decided such ties, and once the lambda.

    Args:
        gram: after `invert`.
        histories: `[n_users, n_items]`, 0/1.
    """

    def scores(users: IntArray) -> FloatArray:
        chosen_histories = histories[users].tocsc()
        total = np.zeros((len(users), gram.n_items))
        for chosen in blocks(gram.n_items):
            part = chosen_histories[:, chosen]
            if part.nnz:
                total += part @ gram.rows(chosen)
        diagonal = gram.diagonal
        own: FloatArray = chosen_histories.toarray()  # B_ii = 0: subtract an item's own term
        return np.round(-(total - own * diagonal) / diagonal, DECIMALS if gram.n_items <= MOST_ITEMS_FLOAT64 else 5)

    return scores


@dataclass(frozen=True)
class Neighbours:
    """The most similar items of every item, most similar first, ties to the smaller id.

    Attributes:
        items: `[n, K]`.
        similarities: `[n, K]`, zero where an item has fewer than K similar items.
    """

    items: IntArray
    similarities: FloatArray

    def scores(self, histories: sp.csr_matrix, k: int) -> UserScores:
        """Return a function that scores an item by the summed similarity of its k neighbours in the user's history.

        Args:
            histories: `[n_users, n_items]`, 0/1.
            k: neighbours used, at most K.
        """
        kept = min(k, self.items.shape[1])
        n = len(self.items)
        targets = np.repeat(np.arange(n), kept)
        matrix = sp.csr_matrix(
            (self.similarities[:, :kept].ravel(), (self.items[:, :kept].ravel(), targets)), shape=(n, n)
        )
        matrix.eliminate_zeros()

        def scores(users: IntArray) -> FloatArray:
            result: FloatArray = (histories[users] @ matrix).toarray()
            return result

        return scores


def find_neighbours(interactions: Interactions, most: int, shrinkage: float) -> Neighbours:
    """Find the most similar items of every item by cosine with shrinkage, the item itself excluded.

    Args:
        interactions: the data set.
        most: K, neighbours kept for each item.
        shrinkage: added to the denominator, at least 0; 0 is the plain cosine.
    """
    histories = history_matrix(interactions).tocsc()
    n = interactions.n_items
    kept = min(most, n - 1)
    roots = np.sqrt(interactions.train_counts.astype(np.float64))
    items = np.empty((n, kept), dtype=np.int64)
    similarities = np.empty((n, kept))
    for chosen in blocks(n):
        together = (histories[:, chosen].T @ histories).toarray()
        below = roots[chosen, None] * roots[None, :] + shrinkage
        similar = np.divide(together, below, out=np.zeros_like(together), where=below > 0)
        rows = np.arange(chosen.stop - chosen.start)
        similar[rows, np.arange(chosen.start, chosen.stop)] = -1.0  # never its own neighbour
        order = np.argsort(-similar, axis=1, kind="stable")[:, :kept]
        items[chosen] = order
        similarities[chosen] = np.maximum(np.take_along_axis(similar, order, axis=1), 0.0)
    return Neighbours(items, similarities)
