"""The rule and the attack that a run's conditions ask for."""

from __future__ import annotations

import torch

from fedvlr_plugin.aggregation.rule import Rule, Transform, WeightedSum
from fedvlr_plugin.config import RunSpec


def make_rule(spec: RunSpec, n_users: int) -> Rule:
    """Build the rule that a run's conditions ask for.

    With privacy and secure aggregation the secure sum is taken first and the noise is added to it.

    Args:
        spec: the run.
        n_users: U, number of all clients.

    Raises:
        UnknownNameError: no robust rule has the name.
        ConfigError: settings that the rule does not take, or an epsilon that cannot be reached.
        MissingExtraError: epsilon is to be accounted for and dp-accounting is not installed.
    """
    conditions = spec.conditions
    if conditions.robust is not None:
        from fedvlr_plugin.aggregation.robust import make_robust_rule

        robust: Rule = make_robust_rule(conditions.robust)
        return robust
    if conditions.privacy is not None:
        from fedvlr_plugin.aggregation.noise import make_private_rule

        private: Rule = make_private_rule(spec, n_users)
        return private
    if conditions.secure is not None:
        from fedvlr_plugin.aggregation.secure import SecureSum

        secure: Rule = SecureSum(conditions.secure, spec.seed)
        return secure
    return WeightedSum()


def make_attack(spec: RunSpec, n_users: int, popularity: torch.Tensor) -> Transform | None:
    """Build the attack that a run's conditions ask for, None for none.

    Args:
        spec: the run.
        n_users: U, number of all clients.
        popularity: training interactions of each item, `[n_items]`.

    Raises:
        ConfigError: the item to promote is not in the data set.
    """
    if spec.conditions.attack is None:
        return None
    from fedvlr_plugin.aggregation.attacks import make_transform

    attack: Transform = make_transform(spec.conditions.attack, spec.seed, n_users, popularity)
    return attack
