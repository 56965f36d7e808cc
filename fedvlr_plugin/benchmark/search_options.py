"""Options that are about a search: whether there is one, and that none of them is ignored. Imports `options`, `profiles`."""

from __future__ import annotations

from fedvlr_plugin.benchmark.options import Options
from fedvlr_plugin.benchmark.profiles import Profile
from fedvlr_plugin.errors import ConfigError


def searches(options: Options, profile: Profile) -> bool:
    """Whether parameters are searched: as the user says, else as the profile does."""
    return options.search != "none" if options.search else bool(profile.search)


def check_search(options: Options, profile: Profile) -> None:
    """Refuses options of a search where there is none, and a database out of reach, before any work.

    Raises `ConfigError`.
    """
    given = {"--storage": options.storage, "--trials": options.trials, "--pruning": options.pruning}
    for name, value in given.items():
        if value and not searches(options, profile):
            raise ConfigError(
                f"{name} is an option of a search, and here is none (profile '{profile.name}', --search "
                f"{options.search or 'not given'}); add --search tpe or --search grid"
            )
    if options.storage is not None:
        from fedvlr_plugin.benchmark.storage import check_url

        check_url(options.storage)
