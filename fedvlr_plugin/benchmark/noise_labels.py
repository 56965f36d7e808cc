"""What stands beside a number that was computed under noise: epsilon, delta, the mechanism.

Imports `record`, `config` and `privacy.guarantee`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedvlr_plugin.experiment.record import RunRecord
from fedvlr_plugin.privacy.guarantee import PrivacyGuarantee, format_epsilon


def epsilon_label(records: Sequence[RunRecord]) -> str:
    """` (ε = 8)` for a cell whose runs were noisy, nothing for one without noise."""
    found = dict.fromkeys(format_epsilon(record.privacy) for record in records if record.privacy is not None)
    return f" (ε = {' / '.join(found)})" if found else ""


def noise_lines(records: Sequence[RunRecord]) -> list[str]:
    """One line for a caption per mechanism that some of the runs used; none where all ran without noise."""
    return list(dict.fromkeys(format_guarantee(record.privacy) for record in records if record.privacy is not None))


def format_guarantee(found: PrivacyGuarantee) -> str:
    """`Noise: gaussian, ε = 8 at δ = 0.00049 (add or remove one user), z = 3.876, C = 0.5, 60 rounds, q = 1.`"""
    if found.mechanism == "paper_noise":
        return (
            f"Noise: paper_noise, ε = ∞ (standard deviation {found.noise_scale:g} on gradients that are not clipped)."
        )
    promised = f"ε = {format_epsilon(found)}"
    if found.delta is not None:
        promised += f" at δ = {found.delta:.2g} ({found.adjacency})"
    bound = f"C at the {found.adaptive_quantile:g} quantile" if found.clip is None else f"C = {found.clip:g}"
    return (
        f"Noise: {found.mechanism}, {promised}, z = {found.noise_multiplier:.4g}, {bound}, {found.rounds} rounds, "
        f"q = {found.sampling:g}."
    )
