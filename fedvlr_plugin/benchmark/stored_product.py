"""`--stored`: a table or figure from the results folder alone. Nothing is run, no data are read.

The runs are those that `rebuild` finds for a profile and a protocol; `--datasets` and `--rows` narrow them down, and
then the files are called `...-part`, beside those of the whole.
Imports `rebuild` and `products`.
"""

from __future__ import annotations

from collections.abc import Callable

from fedvlr_plugin.benchmark.grids import terminal
from fedvlr_plugin.benchmark.options import Options
from fedvlr_plugin.benchmark.products import Finished, get_product
from fedvlr_plugin.benchmark.rebuild import in_order, stored_specs
from fedvlr_plugin.benchmark.store import ResultsStore
from fedvlr_plugin.benchmark.table import count_others, left_out, main_versions
from fedvlr_plugin.errors import ConfigError, ResultsError


def draw_stored(options: Options, product: str, say: Callable[[str], None]) -> None:
    """Shows a product and writes its files.

    Raises:
        ResultsError: nothing of what was asked for is stored, or a file is damaged.
        ConfigError: rows that the product cannot show, or unknown ones.
    """
    from fedvlr_plugin.benchmark.names import check_rows

    _refuse_work(options)
    store, wanted = ResultsStore(options.results), get_product(product, options)
    rows = set(check_rows(options.rows or wanted.rows()))
    specs = [
        spec
        for spec in stored_specs(store, options.profile, options.protocol, options.settings)
        if spec.row in rows and (options.datasets is None or spec.dataset in options.datasets)
    ]
    records = store.records({spec.spec_hash for spec in specs})
    if not records:
        raise ResultsError(
            f"'{options.results}' holds no run of profile {options.profile}, protocol {options.protocol}, for these rows "
            "and data sets; leave --stored out to have them made"
        )
    there = {(record.row, record.dataset) for record in records}
    specs = [spec for spec in specs if (spec.row, spec.dataset) in there]
    fingerprints = main_versions(records)
    for line in left_out(count_others(records, fingerprints)):
        say(line)
    shown = in_order({spec.row for spec in specs})
    wanted.check(shown)
    wanted.finish(
        Finished(
            specs=specs,
            rows=shown,
            datasets=list(options.datasets or sorted(fingerprints)),
            fingerprints=fingerprints,
            modalities={record.dataset: list(record.data.modalities) for record in records},
            store=store,
            profile=options.profile,
            suffix=f"{options.profile}-{options.protocol}" + ("-part" if options.rows or options.datasets else ""),
            console=terminal(),
            say=say,
        )
    )


def _refuse_work(options: Options) -> None:
    """Options about runs would be ignored here, so they are refused."""
    given = {
        "--seeds": options.seeds is not None,
        "--search": options.search is not None,
        "--trials": options.trials is not None,
        "--storage": options.storage is not None,
        "--pruning": options.pruning,
        "--keep": bool(options.keep),
        "--overwrite": options.overwrite != "only-missing",
        "--checkpoint-every": options.checkpoint_every is not None,
        "--dropout": options.dropout > 0.0,
        "--stragglers": options.stragglers > 0.0,
        "--dry-run": options.dry_run,
    }
    for name, is_given in given.items():
        if is_given:
            raise ConfigError(f"{name} is about runs, and --stored makes none; leave one of the two out")
