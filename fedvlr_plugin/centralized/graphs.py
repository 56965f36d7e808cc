"""Build the graphs of the centralized models: user-item, item-item, sub-graph, truncated SVD.

Source: `baselines.md` sections 1, 4 and 5. A `Graph` is a list of weighted edges; `Propagation` is the module that
multiplies a dense matrix by it, forward and backward, on any device. Ids start at 0; there is no padding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
SMALL_DEGREE = 1e-7


@dataclass(frozen=True, eq=False)
class Graph:
    """A sparse matrix as a list of edges, sorted by row and then column; no pair occurs twice.

    Attributes:
        rows: `[n_edges]`.
        columns: `[n_edges]`.
        values: `[n_edges]`.
        shape: of the matrix.
    """

    rows: Ids
    columns: Ids
    values: Values
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: Ids, columns: Ids, values: Values, shape: tuple[int, int]) -> Graph:
        """Create a graph from edges in any order; values of an edge that occurs more than once are added."""
        keys, groups = np.unique(rows * shape[1] + columns, return_inverse=True)
        return cls(keys // shape[1], keys % shape[1], _sums(groups.ravel(), values, len(keys)), shape)

    @property
    def transposed(self) -> Graph:
        """The transposed matrix."""
        return Graph.of(self.columns, self.rows, self.values, (self.shape[1], self.shape[0]))

    def scaled(self, rows: Values, columns: Values) -> Graph:
        """Compute diag(rows) M diag(columns), for `rows` `[n_rows]` and `columns` `[n_columns]`."""
        return Graph(self.rows, self.columns, self.values * rows[self.rows] * columns[self.columns], self.shape)

    def row_sums(self) -> Values:
        """Compute the sums over columns, `[n_rows]`."""
        return _sums(self.rows, self.values, self.shape[0])


def _sums(groups: Ids, values: Values, n: int) -> Values:
    return np.bincount(groups, values, n).astype(np.float64)


class Propagation(torch.nn.Module):
    """Multiplication by a constant sparse matrix `[n_rows, n_columns]`, which is not part of the state dict."""

    matrix: torch.Tensor
    transposed: torch.Tensor

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.register_buffer("matrix", _csr(graph), persistent=False)
        self.register_buffer("transposed", _csr(graph.transposed), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute A x, `[n_columns, d] -> [n_rows, d]`."""
        result: torch.Tensor = _Multiply.apply(self.matrix, self.transposed, x)  # type: ignore[no-untyped-call]
        return result

    def __deepcopy__(self, memo: dict[int, object]) -> Propagation:
        """Return a new module with the same constants: RecBole copies models, and torch cannot copy CSR tensors."""
        copied = Propagation.__new__(Propagation)
        torch.nn.Module.__init__(copied)
        for name, constant in self.named_buffers():
            copied.register_buffer(name, constant, persistent=False)
        return copied

    def layer_mean(self, x: torch.Tensor, n_layers: int) -> torch.Tensor:
        """Compute the mean of x, A x, ..., A^L x (LightGCN's propagation), L = `n_layers` >= 0."""
        total = x
        for _ in range(n_layers):
            x = self(x)
            total = total + x
        return total / (n_layers + 1)


class _Multiply(torch.autograd.Function):
    """Y = A X with dX = A^T dY; A is a constant."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, transposed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, ctx.transposed @ gradients[0].contiguous()


def _csr(graph: Graph) -> torch.Tensor:
    starts = np.zeros(graph.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(graph.rows, minlength=graph.shape[0]), out=starts[1:])
    values = torch.from_numpy(graph.values.astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        parts = (torch.from_numpy(starts), torch.from_numpy(graph.columns), values)
        return torch.sparse_csr_tensor(*parts, graph.shape, check_invariants=True)


def interactions(users: Ids, items: Ids, shape: tuple[int, int], duplicates: Literal["collapse", "add"]) -> Graph:
    """Build the user-item graph R.

    Args:
        users: ids of the training pairs, `[n]`.
        items: ids of the training pairs, `[n]`.
        shape: n_users and n_items.
        duplicates: a pair that occurs twice weighs 1 (`collapse`) or 2 (`add`).
    """
    counts = Graph.of(users, items, np.ones(len(users)), shape)
    return counts if duplicates == "add" else Graph(counts.rows, counts.columns, np.ones(len(counts.rows)), shape)


def normalised(graph: Graph, small: float = 0.0) -> Graph:
    """Compute D_row^-1/2 M D_col^-1/2 with degrees = sums + `small`; a degree of 0 gives 0."""
    return graph.scaled(_inverse_root(graph.row_sums() + small), _inverse_root(graph.transposed.row_sums() + small))


def _inverse_root(degrees: Values) -> Values:
    result: Values = np.zeros_like(degrees)
    np.divide(1.0, np.sqrt(degrees), out=result, where=degrees > 0)
    return result


def bipartite(block: Graph) -> Graph:
    """Build [[0, B], [B^T, 0]] from B `[n_users, n_items]`; users come first."""
    n_users, n_items = block.shape
    rows = np.concatenate([block.rows, block.columns + n_users])
    columns = np.concatenate([block.columns + n_users, block.rows])
    return Graph.of(rows, columns, np.tile(block.values, 2), (n_users + n_items, n_users + n_items))


def blend(graphs: Sequence[Graph], shares: Sequence[float]) -> Graph:
    """Compute sum_m share_m graph_m over graphs of one shape."""
    values = np.concatenate([share * graph.values for share, graph in zip(shares, graphs, strict=True)])
    rows, columns = (np.concatenate([getattr(graph, name) for graph in graphs]) for name in ("rows", "columns"))
    return Graph.of(rows, columns, values, graphs[0].shape)


def cosine_neighbours(features: torch.Tensor, k: int, block: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k most similar items of each item by cosine, the item itself included.

    Args:
        features: `[n_items, m]`.
        k: neighbours kept, at most n_items.
        block: items compared at a time.

    Returns:
        Indices and cosines, both `[n_items, k]`, most similar first. An item with zero features has cosine 0 with all.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    parts = [(unit[i : i + block] @ unit.T).topk(min(k, len(unit)), dim=1) for i in range(0, len(unit), block)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def item_graph(features: torch.Tensor, k: int, weighted: bool) -> Graph:
    """Build the directed item-item graph d_i^-1/2 s_ij d_j^-1/2 over the k nearest neighbours, with d the row sums of s.

    Args:
        features: `[n_items, m]`.
        k: neighbours of each item, itself included.
        weighted: s_ij is the cosine (0 if negative) if true, else 1, which makes the weight of every edge 1/k.
    """
    neighbours, cosines = cosine_neighbours(features, k)
    n, kept = neighbours.shape
    weights = cosines.clamp(min=0).double().numpy().ravel() if weighted else np.ones(n * kept)
    graph = Graph.of(np.repeat(np.arange(n), kept), neighbours.numpy().ravel(), weights, (n, n))
    scale = _inverse_root(graph.row_sums())
    return graph.scaled(scale, scale)


def edge_weights(users: Ids, items: Ids) -> torch.Tensor:
    """Compute (d_u d_i)^-1/2 of each training pair, `[n]`; duplicates count in the degrees."""
    degrees = np.bincount(users)[users].astype(np.float64) * np.bincount(items)[items]
    return torch.from_numpy(1.0 / np.sqrt(degrees))


def sample_edges(weights: torch.Tensor, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Draw distinct edges without replacement, with probabilities proportional to their weights (exponential keys).

    Args:
        weights: `[n_edges]`, above 0.
        count: edges to draw, at most n_edges.
        generator: of the random numbers; None for torch's global one.

    Returns:
        Indices `[count]`, ascending.
    """
    keys = torch.empty_like(weights).exponential_(generator=generator) / weights
    return keys.topk(count, largest=False).indices.sort().values


def truncated_svd(adjacency: Graph, rank: int = 64, kept: int = 16, small: float = 1e-3) -> Graph:
    """Compute PGL's global sub-graph, sum_t s_t s_(rank-kept+t) u_t v_t^T over the first `kept` singular vectors.

    The factors are the `kept` largest of `rank` singular values times the `kept` smallest, both in descending order.

    Args:
        adjacency: the matrix to decompose.
        rank: of the SVD; reduced for a matrix smaller than that.
        kept: singular vectors used, at most `rank`.
        small: entries with an absolute value below this are dropped.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    rank = min(rank, min(adjacency.shape) - 1)
    kept = min(kept, rank)
    matrix = csr_matrix((adjacency.values, (adjacency.rows, adjacency.columns)), shape=adjacency.shape)
    left, values, right = svds(matrix, k=rank, v0=np.ones(min(adjacency.shape)))
    order = np.argsort(-values)
    left, right = left[:, order[:kept]] * (values[order[:kept]] * values[order[-kept:]]), right[order[:kept]]
    parts = []
    for start in range(0, len(left), 1024):
        dense = left[start : start + 1024] @ right
        rows, columns = np.nonzero(np.abs(dense) >= small)
        parts.append((rows + start, columns, dense[rows, columns]))
    rows, columns, entries = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Graph(rows.astype(np.int64), columns.astype(np.int64), entries, adjacency.shape)
