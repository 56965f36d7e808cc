"""`fedvlr data`: list, info, prepare, verify, features, import, export, peek. Heavy modules wait until a command runs.

Errors of ours are one line on stderr and exit code 2; `verify` exits with 1 when something differs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from fedvlr_plugin.errors import ConfigError, DataError, FedVLRError

app = typer.Typer(help="Data sets: list, look at, prepare from raw files, verify, encode.", no_args_is_help=True)
MaybePath = Optional[Path]  # noqa: UP045 (typer 0.9 does not know X | None)
Root = Annotated[
    MaybePath,
    typer.Option("--data-root", show_default=False, help="Folder of data sets; else FEDVLR_DATA, else ./data."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder that gets a folder per data set.")]
MaybeInt = Optional[int]  # noqa: UP045


KEPT = "; what is done is kept, the same command goes on"
Folder = Annotated[Path, typer.Argument(show_default=False, help="The folder of one data set.")]
Name = Annotated[
    str, typer.Argument(show_default=False, help="A data set, in any capitalisation; see: fedvlr data list.")
]


@contextmanager
def _one_line_errors(when_stopped: str = "") -> Iterator[None]:
    try:
        yield
    except FedVLRError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped by Ctrl-C{when_stopped}", err=True)
        raise typer.Exit(130) from None


@app.command("list")
def list_command(data_root: Root = None) -> None:
    """Every data set that can be used, beside Table 1, and the recipes for raw files."""
    with _one_line_errors():
        from fedvlr_plugin.data.catalogue import available, resolve_data_root
        from fedvlr_plugin.data.preparation.recipes import RECIPES
        from fedvlr_plugin.data.recbole.loader import prepare
        from fedvlr_plugin.data.statistics import comparison_table, statistics

        root = resolve_data_root(data_root)
        found, broken = [], []
        for name in available(root):
            try:
                found.append(statistics(prepare(name, root)))
            except FedVLRError as error:  # one damaged folder must not hide the others
                broken.append(f"{name} cannot be used: {error}")
        typer.echo(comparison_table(found))
        for line in broken:
            typer.echo(line)
        typer.echo(f"can be prepared from raw files (fedvlr data prepare NAME): {', '.join(RECIPES)}")


@app.command()
def info(
    name: Name,
    data_root: Root = None,
    png: Annotated[
        MaybePath,
        typer.Option(show_default=False, metavar="FILE", help="Also draw these numbers as one picture, here."),
    ] = None,
) -> None:
    """Table 1's row, activity, cold shares, modality coverage; with --png one picture of them too.

    Example: fedvlr data info ku --png ku.png
    """
    with _one_line_errors():
        from fedvlr_plugin.data.recbole.loader import prepare
        from fedvlr_plugin.data.statistics import description, statistics

        data = prepare(name, data_root)
        typer.echo(description(statistics(data)))
        typer.echo(f"times: {data.facts.get('times', 'unknown')}")
        for modality in data.features.values():
            typer.echo(f"modality {modality.name} comes from: {modality.source}")
        if png is None:
            typer.echo(f"no picture was asked for; get one with: fedvlr data info {data.name} --png {data.name}.png")
        else:
            from fedvlr_plugin.data.preview import save_overview

            save_overview(data, png)
            typer.echo(f"picture: {png}")


@app.command("prepare")
def prepare_command(
    name: Name,
    raw: Annotated[
        MaybePath,
        typer.Option(show_default=False, help="Folder (or zip) of the publisher's files; default OUT/raw/NAME."),
    ] = None,
    out: Out = Path("data"),
    download: Annotated[bool, typer.Option("--download", help="Fetch the raw files from the publisher first.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run made.")] = False,
) -> None:
    """Make a data set of Table 1 from its publisher's raw files: atomic files, titles, manifest.

    Example: fedvlr data prepare ml --raw ml-latest-small.zip --out data
    """
    with _one_line_errors(KEPT):
        from fedvlr_plugin.data.catalogue import DEFAULT_ROOT, ROOT_VARIABLE
        from fedvlr_plugin.data.preparation.prepare import prepare_raw
        from fedvlr_plugin.data.preparation.recipes import find_recipe

        recipe = find_recipe(name)
        folder = raw or out / "raw" / recipe.name
        wanted = " and ".join(recipe.publisher.filenames)
        if download:
            if not recipe.downloads:
                raise DataError(
                    f"{recipe.name} cannot be fetched by a program: get {wanted} from {recipe.publisher.page}, put them into "
                    f"'{folder}' and run again without --download"
                )
            _download(recipe.name, folder)
        elif not folder.exists():
            raise DataError(
                f"no raw files at '{folder}': put {wanted} from {recipe.publisher.page} there, or name their folder with --raw"
                + (", or fetch them with --download" if recipe.downloads else "")
            )
        manifest = prepare_raw(name, folder, out, overwrite=overwrite)
        typer.echo(f"{recipe.name}: {_counts(manifest['before'])} in the raw files; times: {manifest['times']}")
        steps = manifest["filters"]
        for step in steps if isinstance(steps, list) else []:
            typer.echo(f"  after '{step['step']}': {_counts(step)}")
        seen = Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).resolve() == out.resolve()
        typer.echo(
            f"written to {out / recipe.name}" + ("" if seen else f"; other commands find it with --data-root {out}")
        )
        _say_differences(manifest["differs_from_table_1"])


@app.command()
def verify(name: Name, data_root: Root = None) -> None:
    """Compare a prepared data set with Table 1; exit with 1 and say exactly what differs if something does.

    Example: fedvlr data verify ml
    """
    with _one_line_errors():
        from fedvlr_plugin.data.recbole.loader import prepare
        from fedvlr_plugin.data.statistics import comparison_table, differences, statistics, table1

        found = statistics(prepare(name, data_root))
        if found.name.lower() not in table1():
            raise ConfigError(
                f"'{found.name}' is not in Table 1, which has {', '.join(table1())}; see: fedvlr data info {found.name}"
            )
        typer.echo(comparison_table([found]))
        lines = differences(found)
        _say_differences(lines)
        raise typer.Exit(1 if lines else 0)


@app.command()
def features(
    name: Name,
    modality: Annotated[list[str], typer.Option(help="vision, text, or both (give it twice).")] = ["text"],  # noqa: B006 (typer)
    images: Annotated[
        MaybePath, typer.Option(show_default=False, help="Folder of images named by item token, e.g. B07J3GH1W1.jpg.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="clip, tfidf, sentence-transformers, timm.")] = "clip",
    model: Annotated[str, typer.Option(help="Model of the encoder; default: the encoder's own.")] = "",
    pretrained: Annotated[str, typer.Option(help="clip: whose weights (a tag of open_clip).")] = "openai",
    weights: Annotated[
        MaybePath, typer.Option(show_default=False, help="A local file with the weights; works offline.")
    ] = None,
    allow_random_weights: Annotated[
        bool, typer.Option("--allow-random-weights", help="Untrained weights, labelled so.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    batch_size: Annotated[
        MaybeInt, typer.Option(min=1, show_default=False, help="Items to encode at once; default: 64.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace feature files that are there.")] = False,
    data_root: Root = None,
) -> None:
    """Encode titles and images of a data set; goes on where an interrupted run stopped.

    Example: fedvlr data features ml --modality text --modality vision --images POSTERS
    """
    with _one_line_errors(KEPT):
        from fedvlr_plugin.features.encode import encode_dataset

        settings: dict[str, object] = {"device": device}
        if model:
            settings["model"] = model
        if encoder.casefold() == "clip":
            settings["pretrained"] = pretrained
        if weights is not None:
            settings["weights"] = weights
        if allow_random_weights:
            settings["allow_random_weights"] = True
        for line in encode_dataset(
            name, modality, encoder, settings, images, batch_size, data_root, overwrite=overwrite
        ):
            typer.echo(line)


@app.command("import")
def import_command(
    folder: Folder,
    out: Out = Path("data"),
    name: Annotated[
        str, typer.Option(show_default=False, help="Name of the data set; default: that of the folder.")
    ] = "",
) -> None:
    """Turn a folder in the paper's released layout into RecBole's atomic files, without loss.

    Example: fedvlr data import released/ku --out data
    """
    with _one_line_errors():
        from fedvlr_plugin.data.preparation.convert import import_released

        typer.echo(f"written to {import_released(folder, out, name or None)}")


@app.command("export")
def export_command(folder: Folder, out: Out) -> None:
    """Turn a folder of atomic files into the paper's released layout, without loss.

    Example: fedvlr data export data/ku --out released
    """
    with _one_line_errors():
        from fedvlr_plugin.data.preparation.convert import export_released

        typer.echo(f"written to {export_released(folder, out)}")


@app.command()
def peek(
    name: Name,
    images: Annotated[
        MaybePath,
        typer.Option(show_default=False, help="Folder of images named by item token (or by the raw id in items.csv)."),
    ] = None,
    html: Annotated[
        MaybePath,
        typer.Option(show_default=False, help="Where the page goes; default NAME.html in the working directory."),
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="How many users to show.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed that draws them.")] = 0,
    data_root: Root = None,
) -> None:
    """Show a few users' histories with titles and posters as one HTML page.

    Example: fedvlr data peek ml --images POSTERS --html ml.html
    """
    with _one_line_errors():
        from fedvlr_plugin.data.item_metadata import item_images, item_titles
        from fedvlr_plugin.data.preview import write_page
        from fedvlr_plugin.data.recbole.loader import prepare

        data = prepare(name, data_root)
        target = html or Path(f"{data.name}.html")
        pictures = item_images(data, images, data_root)
        shown = write_page(data, item_titles(data.name, data_root), target, images=pictures, users=users, seed=seed)
        hint = "" if images is not None or shown else "; name their folder with --images DIR"
        typer.echo(f"page: {target} ({shown} images{hint})")


def _download(name: str, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from fedvlr_plugin.data.preparation.download import fetch
    from fedvlr_plugin.data.preparation.recipes import find_recipe

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    files = find_recipe(name).downloads
    missing = [one.url for one in files if not (folder / one.filename).is_file()]
    by_hand = f"fetch {' and '.join(missing)} by hand into '{folder}' and run again without --download"
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        for one in files:
            task = progress.add_task(one.filename, total=None)

            def advance(done: int, total: int | None, task_id: int = int(task)) -> None:
                progress.update(progress.tasks[task_id].id, completed=done, total=total)

            advice = by_hand if len(missing) > 1 else ""
            fetch(one.url, folder / one.filename, sha256=one.sha256, on_bytes=advance, by_hand=advice)


def _counts(found: object) -> str:
    if not isinstance(found, dict):
        return "?"
    return f"{found['users']:,} users, {found['items']:,} items, {found['interactions']:,} interactions"


def _say_differences(lines: object) -> None:
    for line in lines if isinstance(lines, list) else []:
        typer.echo(f"differs from Table 1: {line}")
    if not lines:
        typer.echo("equals Table 1")
