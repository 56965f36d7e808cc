"""Every graph builder on small examples, entries worked out by hand."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.centralized_toy import DUPLICATE, SHAPE, block_of, counted, dense, rows

from fedvlr_plugin.centralized.graphs import (
    SMALL_DEGREE,
    Graph,
    Propagation,
    bipartite,
    blend,
    cosine_neighbours,
    edge_weights,
    interactions,
    item_graph,
    normalised,
    sample_edges,
    truncated_svd,
)

FEATURES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-2.0, 0.0]])


def full(graph: Graph) -> np.ndarray:
    out = np.zeros(graph.shape)
    out[graph.rows, graph.columns] = graph.values
    return out


def test_normalised_block_by_hand():
    block = full(normalised(interactions(*rows(), SHAPE, "collapse")))
    expected = np.zeros(SHAPE)
    expected[0, 0] = 1 / 2  # degrees 2 and 2
    expected[0, 1] = 1 / math.sqrt(6)
    expected[1, 1] = 1 / math.sqrt(3)
    expected[2, 1] = 1 / 3
    expected[2, 2] = expected[2, 3] = 1 / math.sqrt(3)
    expected[3, 4] = 1.0
    expected[4, 0] = 1 / math.sqrt(2)
    assert np.allclose(block, expected, atol=1e-12)


def test_duplicates_weigh_two_where_they_are_added():
    block = full(normalised(interactions(*rows(), SHAPE, "add")))
    assert block[DUPLICATE] == pytest.approx(2 / 3)  # weight 2, degrees 3 and 3
    assert block[4, 0] == pytest.approx(1 / math.sqrt(3))
    assert np.allclose(block, block_of(counted(2)))
    assert (block[:, 5] == 0).all() and np.isfinite(block).all()


def test_bipartite_is_symmetric_and_small_degrees_matter_little():
    exact = full(bipartite(normalised(interactions(*rows(), SHAPE, "collapse"))))
    nudged = full(bipartite(normalised(interactions(*rows(), SHAPE, "collapse"), SMALL_DEGREE)))
    assert np.allclose(exact, dense(block_of(counted(1))))
    assert (exact == exact.T).all()
    assert 0 < np.abs(exact - nudged).max() < 2e-7


def test_propagation_multiplies_forward_and_backward():
    block = normalised(interactions(*rows(), SHAPE, "collapse"))
    graph, matrix = Propagation(block), torch.from_numpy(full(block)).float()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = torch.arange(15.0).view(5, 3)
    (graph(x) * weights).sum().backward()
    assert torch.allclose(graph(x), matrix @ x, atol=1e-6)
    assert torch.allclose(x.grad, matrix.T @ weights, atol=1e-5)
    assert not graph.state_dict()
    assert torch.equal(copy.deepcopy(graph)(x), graph(x))


def test_layer_mean_is_the_mean_of_the_powers():
    square = full(bipartite(normalised(interactions(*rows(), SHAPE, "collapse"))))
    graph = Propagation(bipartite(normalised(interactions(*rows(), SHAPE, "collapse"))))
    x = np.random.default_rng(0).normal(size=(11, 2))
    expected = (x + square @ x + square @ square @ x) / 3
    assert np.allclose(graph.layer_mean(torch.from_numpy(x).float(), 2).numpy(), expected, atol=1e-5)


def test_cosine_neighbours_by_hand():
    index, cosine = cosine_neighbours(FEATURES, 2)
    assert index.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]
    assert torch.allclose(cosine, torch.tensor([[1.0, 0.8], [1.0, 0.8], [1.0, 0.6], [1.0, 0.0]]), atol=1e-6)
    blocked = cosine_neighbours(FEATURES, 2, block=3)
    assert torch.equal(blocked[0], index) and torch.allclose(blocked[1], cosine)
    assert cosine_neighbours(FEATURES, 10)[0].shape == (4, 4)


def test_weighted_item_graph_by_hand():
    graph = full(item_graph(FEATURES, 2, weighted=True))
    expected = np.zeros((4, 4))
    expected[0, 0] = expected[1, 1] = 1 / 1.8
    expected[0, 1] = expected[1, 0] = 0.8 / 1.8
    expected[2, 2], expected[2, 1] = 1 / 1.6, 0.6 / math.sqrt(1.6 * 1.8)
    expected[3, 3] = 1.0
    assert np.allclose(graph, expected, atol=1e-6)  # directed: [1, 2] stays 0


def test_a_negative_cosine_counts_as_zero():
    graph = full(item_graph(torch.tensor([[1.0, 0.0], [-1.0, 0.1]]), 2, weighted=True))
    assert np.allclose(graph, np.eye(2), atol=1e-6)


def test_a_row_of_zeros_does_no_harm():
    graph = full(item_graph(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]]), 2, weighted=True))
    assert np.isfinite(graph).all() and (graph[0] == 0).all()


def test_unweighted_edges_are_one_over_k():
    graph = full(item_graph(FEATURES, 2, weighted=False))
    assert np.allclose(graph[graph > 0], 0.5) and (graph > 0).sum() == 8


def test_blend():
    one, two = (item_graph(FEATURES, k, weighted=False) for k in (1, 2))
    assert np.allclose(full(blend([one, two], [0.25, 0.75])), 0.25 * full(one) + 0.75 * full(two))


def test_edge_weights_count_duplicates_in_the_degrees():
    weights = edge_weights(*rows())
    assert weights[0] == pytest.approx(1 / 3)  # user 0 has 3 rows, item 0 has 3
    assert weights[6] == pytest.approx(1.0)


def test_edges_are_drawn_in_proportion_and_without_repetition():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    source = torch.Generator().manual_seed(5)
    first = torch.zeros(4)
    for _ in range(8000):
        first[sample_edges(weights, 1, source)] += 1
    share = weights.numpy() / 10
    assert np.allclose(first.numpy() / 8000, share, atol=4 * np.sqrt(0.25 / 8000))
    drawn = sample_edges(weights, 3, source)
    assert len(set(drawn.tolist())) == 3 and drawn.tolist() == sorted(drawn.tolist())


def test_truncated_svd_against_a_dense_one():
    matrix = np.random.default_rng(3).normal(size=(9, 9)) / 3  # no two singular values alike
    rows_, columns = np.nonzero(matrix)
    left, values, right = np.linalg.svd(matrix)
    rank, kept = 7, 3
    expected = (left[:, :kept] * values[:kept] * values[rank - kept : rank]) @ right[:kept]
    assert (np.abs(expected) < 0.05).any()
    expected[np.abs(expected) < 0.05] = 0
    graph = truncated_svd(Graph(rows_, columns, matrix[rows_, columns], (9, 9)), rank, kept, small=0.05)
    assert np.allclose(full(graph), expected, atol=1e-9)


def test_truncated_svd_shrinks_with_the_matrix():
    adjacency = bipartite(normalised(interactions(*rows(), SHAPE, "collapse")))
    found = full(truncated_svd(adjacency))
    assert np.isfinite(found).all() and np.linalg.matrix_rank(found) <= 10
