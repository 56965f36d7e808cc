"""Read FedML's options, and refuse those that FedML would silently ignore.

FedML flattens the sections of its YAML file into attributes of one object.
"""

from __future__ import annotations

from fedvlr_plugin.errors import ConfigError

ACTING_DEFENSES = {
    "norm_diff_clipping": ("norm_bound",),
    "krum": ("byzantine_client_num",),
    "multikrum": ("byzantine_client_num", "krum_param_m"),
    "trimmed_mean": ("beta",),
    "rfa": (),
    "geo_median": ("byzantine_client_num", "batch_num", "client_num_per_round"),
    "wise_median": (),
}
"""FedML's defences that bound a client that lies, and the options that each needs; see the module `defenses`."""
FALSE_DEFENSES = {
    "weak_dp": "does nothing",
    "robust_learning_rate": "does nothing",
    "foolsgold": "left the mean unchanged",
}
ELSEWHERE = "set FedVLR's own conditions instead (privacy, secure: see the README)"
OURS = (
    "fedvlr_row",
    "fedvlr_protocol",
    "fedvlr_settings",
    "fedvlr_dtype",
    "fedvlr_data_root",
    "fedvlr_rounds",
    "fedvlr_device",
    "fedvlr_engine",
    "fedvlr_upload",
    "fedvlr_private_state_dir",
    "fedvlr_checkpoint",
    "fedvlr_round_timeout",
    "fedvlr_robust",
)


def option(args: object, name: str, default: object = None) -> object:
    """Return the value of an option; `default` if it is absent or empty."""
    value = getattr(args, name, None)
    return default if value is None else value


def whole(args: object, name: str, default: int) -> int:
    """Return an option that is a whole number; raise `ConfigError` if it is not."""
    value = option(args, name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}: a whole number is needed, got {value!r}")
    return value


def text(args: object, name: str, default: str = "") -> str:
    """Return an option as text."""
    return str(option(args, name, default))


def is_cross_silo(args: object) -> bool:
    """Return whether each client is a process of its own, with several users."""
    return text(args, "training_type") == "cross_silo"


def check_options(args: object) -> None:
    """Refuse options that FedML 0.9.6 ignores, fails on, or does not apply to a custom trainer and aggregator.

    Raises:
        ConfigError: names the option and what to do instead.
    """
    for name in vars(args):
        if name.startswith("fedvlr_") and name not in OURS:
            raise ConfigError(f"unknown option '{name}'; known: {', '.join(OURS)}")
    if option(args, "enable_fhe"):
        raise ConfigError(f"enable_fhe: FedML never switches it on and sends nothing instead; {ELSEWHERE}")
    if option(args, "enable_dp"):
        kind = text(args, "dp_solution_type", "ldp")
        reason = "adds no noise at all" if kind in ("nbafl", "dp_clip") else "adds noise without clipping the update"
        raise ConfigError(
            f"enable_dp, dp_solution_type {kind}: FedML {reason}, which guarantees no privacy; {ELSEWHERE}"
        )
    if option(args, "enable_defense"):
        _check_defence(args, text(args, "defense_type").strip())
    if option(args, "enable_attack") and text(args, "attack_type") in ("label_flipping", "edge_case_backdoor"):
        raise ConfigError(f"attack_type '{text(args, 'attack_type')}' expects batches of labelled images")
    if option(args, "enable_contribution"):
        raise ConfigError("enable_contribution: the server holds no client's test data, so there is nothing to measure")
    optimizer = text(args, "federated_optimizer", "FedAvg")
    if optimizer != "FedAvg":
        raise ConfigError(
            f"federated_optimizer '{optimizer}': FedML bypasses or breaks a custom aggregator with it; use FedAvg "
            "(the server's own optimiser is fedvlr_settings: {server_optimizer: adam})"
        )
    if option(args, "weight_decay"):
        raise ConfigError("weight_decay has no effect here; the backbones' own penalties are in fedvlr_settings.params")
    if option(args, "using_mlops") or option(args, "enable_tracking") or option(args, "enable_wandb"):
        raise ConfigError("using_mlops, enable_tracking and enable_wandb send data away; set them to false")
    _check_place(args)


def _check_defence(args: object, kind: str) -> None:
    """Check FedML's defence and the options that it needs."""
    if kind not in ACTING_DEFENSES:
        known = ", ".join(ACTING_DEFENSES)
        reason = FALSE_DEFENSES.get(kind, "is not known to bound a client that lies")
        raise ConfigError(f"defense_type '{kind}' of FedML {reason}; those that act: {known}")
    missing = [name for name in ACTING_DEFENSES[kind] if option(args, name) is None]
    if missing:
        raise ConfigError(f"defense_type '{kind}' needs {', '.join(missing)}")
    if option(args, "fedvlr_robust") is not None:
        raise ConfigError("enable_defense and fedvlr_robust: two rules for one sum; give one of them")
    if kind == "trimmed_mean":
        beta = option(args, "beta")
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0.0 <= beta < 0.5:
            raise ConfigError(f"beta: the share cut off at each end, from 0 to below 0.5, is needed, got {beta!r}")
        if option(args, "enable_attack"):
            raise ConfigError(
                "enable_attack with trimmed_mean: FedML attacks what the defence is fed, which is no client's upload any "
                "more; use fedvlr_robust: trimmed_mean"
            )


def _check_place(args: object) -> None:
    """Check training type and backend."""
    kind, backend = text(args, "training_type", "simulation"), text(args, "backend", "sp")
    if kind == "simulation":
        if backend != "sp":
            raise ConfigError(f"simulation with backend '{backend}' never calls the aggregator; use cross_silo instead")
        return
    if kind != "cross_silo":
        raise ConfigError(f"training_type '{kind}' is not supported; allowed: simulation (with the driver), cross_silo")
    if text(args, "scenario", "horizontal") != "horizontal":
        raise ConfigError("scenario: only horizontal is supported (FedML ends the others by itself)")
    if backend not in ("GRPC", "MPI", "TRPC"):
        raise ConfigError(
            f"backend '{backend}': allowed are GRPC, MPI and TRPC (MQTT_S3 does not end and needs a cloud)"
        )
    workers = whole(args, "worker_num", 0)
    for name in ("client_num_in_total", "client_num_per_round"):
        if whole(args, name, workers) != workers:
            raise ConfigError(
                f"{name} is {whole(args, name, workers)} and worker_num {workers}: with a changing choice FedML hands a "
                "process other users each round. Make them equal; fedvlr_settings: {participation: 0.1} draws users"
            )
