"""Who is called in a round, and who answers."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedvlr_plugin.federation.cohort import draw_cohort


@pytest.mark.parametrize("participation, size", [(1.0, 10), (0.25, 3), (0.01, 1)])
def test_cohort_sizes(participation, size):
    cohort = draw_cohort(0, 1, 10, participation)
    assert len(cohort) == size and torch.equal(cohort, cohort.unique())


def test_every_client_is_drawn_equally_often():
    counts = np.zeros(20)
    for number in range(600):
        counts[draw_cohort(4, number, 20, 0.3).numpy()] += 1
    assert counts.sum() == 600 * 6
    assert stats.chisquare(counts).pvalue > 1e-3
