"""Fixtures that many tests share: specifications, a stand-in for `run`, and what is drawn on a picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: tests run several processes at once

import pytest  # noqa: E402
from helpers.fakes import check_apart, fake_run, make_data  # noqa: E402

from fedvlr_plugin.config import RunSpec  # noqa: E402
from fedvlr_plugin.data.prepared import PreparedData  # noqa: E402
from fedvlr_plugin.experiment.result import RunResult  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture
    from matplotlib.transforms import Bbox

pytest.register_assert_rewrite("fedvlr_plugin.testing")  # the shipped suites explain their failures, too

# the package from outside brings its own suite, which test_extension.py runs where that package is installed
collect_ignore = ["helpers"]
# the loops are compiled once for all processes that tests start, also where Python may write no compiled files
COMPILED = tempfile.TemporaryDirectory(prefix="fedvlr-compiled-")
os.environ.setdefault("NUMBA_CACHE_DIR", COMPILED.name)


@pytest.fixture
def make_spec() -> Callable[..., RunSpec]:
    """A small float64 specification; keywords go to the training configuration, the protocol or the model."""

    from fedvlr_plugin.testing.toy import toy_spec

    def build(row: str = "FedAvg", seed: int = 1, **changes: object) -> RunSpec:
        return toy_spec(row, seed=seed, **changes)

    return build


@pytest.fixture(autouse=True)
def only_the_rows_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the floors that every table has, for tests that count runs; `@pytest.mark.references` keeps them."""
    if request.node.get_closest_marker("references") is None:
        monkeypatch.setattr("fedvlr_plugin.cli.request.REFERENCES", ())


@pytest.fixture
def tiny() -> PreparedData:
    return make_data()


@pytest.fixture
def fake() -> Callable[..., RunResult]:
    return fake_run


@pytest.fixture
def texts_of(monkeypatch) -> Callable[..., list[tuple[str, Bbox]]]:
    """Draws a picture and gives the texts that were really drawn, with the boxes they take."""
    pytest.importorskip("matplotlib", reason="figures need the extra [report]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    def texts_of(picture: Picture) -> list[tuple[str, Bbox]]:
        renderer = FigureCanvasAgg(picture).get_renderer()
        drawn: list[Text] = []
        draw = Text.draw

        def note(text: Text, renderer) -> None:  # the renderer is not told which text a line of several belongs to
            if text.get_visible() and text.get_text():
                drawn.append(text)
            draw(text, renderer)

        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", note)
            picture.draw(renderer)
        return [(text.get_text(), Text.get_window_extent(text, renderer)) for text in drawn]

    return texts_of


@pytest.fixture
def all_apart() -> Callable[[list[tuple[str, Bbox]], Bbox], None]:
    return check_apart
