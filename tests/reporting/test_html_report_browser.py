"""The report in a real browser: its numbers, sorting, links to manifests, and that it asks nothing of the network."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.fakes import fake_run, make_data

from fedvlr_plugin.cli.tables import report
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.experiment.profiles import PROFILES, specs_for
from fedvlr_plugin.experiment.store import ResultsStore
from fedvlr_plugin.paper.tables import METRICS
from fedvlr_plugin.reporting.results_table import Table
from fedvlr_plugin.reporting.stored_runs import stored_table

pytest.importorskip("matplotlib", reason="the report needs the extra [report]")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH (looked for {', '.join(NAMES)})")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
ROWS = {"ku": ["popularity", "VBPR", "FedAvg", "FedAvg+MLP", "FedAvg+ours", "FCF+ours"], "tiny": ["FedAvg", "VBPR"]}


class Page(HTMLParser):
    """Tables as lists of lines of (text, classes, title), by place too; open sections, and the attributes of <html>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str, str]]]] = []
        self.named: dict[str, list[list[tuple[str, str, str]]]] = {}
        self.opened: set[str] = set()
        self.root: dict[str, str | None] = {}
        self._text: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        if tag == "html":
            self.root = found
        elif tag == "table":
            self.tables.append([])
            if "id" in found:
                self.named[str(found["id"])] = self.tables[-1]
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag == "td":
            self._text, self._found = [], (found.get("class") or "", found.get("title") or "")
        elif tag == "details" and "open" in found:
            self.opened.add(found.get("id") or "")

    def handle_endtag(self, tag) -> None:
        if tag == "td" and self._text is not None:
            self.tables[-1][-1].append(("".join(self._text), *self._found))
            self._text = None

    def handle_data(self, data) -> None:
        if self._text is not None:
            self._text.append(data)

    def lines(self, dataset: str) -> list[list[tuple[str, str, str]]]:
        """The lines of the table of results on a data set, in the order they stand in now."""
        return [line for line in self.named[f"s0-table-{dataset}"] if line]

    def first_column(self, dataset: str = "ku") -> list[str]:
        """The names of its rows."""
        return [line[0][0] for line in self.lines(dataset)]


def heading(dataset: str, column: int) -> str:
    """JavaScript for a heading of the table of results on a data set."""
    return f"document.querySelector('#s0-table-{dataset} th[data-column=\"{column}\"]')"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Table]:
    """A report over two data sets, one of which lacks most rows, and the table behind it."""
    store = ResultsStore(tmp_path_factory.mktemp("report"))
    for dataset, rows in ROWS.items():
        tiny = make_data()
        data = PreparedData(dataset, tiny.interactions, tiny.features)
        for run in specs_for(PROFILES["smoke"], [dataset], rows, 2):
            store.append(fake_run(run, data=data), data, "smoke")
    assert report(["--results", str(store.root)]) == 0
    return store.root / "report.html", stored_table(store, "smoke", "corrected")


@pytest.fixture
def browse(made, tmp_path: Path) -> Callable[..., Page]:
    """Loads the report, with something put into it, and gives the page as it is after its scripts have run."""
    watch = (
        "<script>addEventListener('error', function (e) { document.documentElement.dataset.error = e.message; });"
        "</script>"
    )

    def browse(script: str = "", place: str = "", extra: str = "", change: Callable[[str], str] = str) -> Page:
        text = change(made[0].read_text(encoding="utf-8"))
        assert text.count("<head>") == text.count("</body>") == 1
        text = text.replace("<head>", f"<head>{watch}").replace("</body>", f"{extra}<script>{script}</script></body>")
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", *QUIET, "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
        done = subprocess.run([*command, f"{path.as_uri()}{place}"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        page = Page(done.stdout)
        assert "data-error" not in page.root, page.root
        return page

    return browse


def test_every_number_of_the_store_is_on_the_page(browse, made) -> None:
    table, page = made[1], browse()
    bold = set()
    for dataset in table.datasets:
        assert page.first_column(dataset) == [row for row in table.rows if row in ROWS[dataset]]
        for row, *cells in page.lines(dataset):
            cell = table.cells[row[0], dataset]
            for metric in METRICS:
                number, interval, *rest = (cells.pop(0) for _ in range(4 if dataset == "ku" else 2))
                figure = cell.figures[metric]
                assert number[0].startswith(f"{figure.mean:.2f}")
                assert interval[0] == f"{figure.interval.low:.2f}..{figure.interval.high:.2f}"
                assert f"95 % interval {figure.interval.low:.2f} to {figure.interval.high:.2f}" in number[2]
                for record in cell.records:
                    assert f"{record.seed}: {record.test[metric]:.2f}" in number[2]
                if row[0].startswith("F"):
                    assert f"client_lr {cell.records[0].spec.training.client_lr:g}" in number[2]
                if figure.difference is not None:
                    comparable = figure.verdict is not None and figure.verdict.word != "not comparable"
                    assert rest[1][0] == (f"{figure.difference:+.2f}" if comparable else "≠")
                if "best" in number[1]:
                    bold.add((row[0], dataset, metric))
            assert not cells
    assert bold == {(table.best(dataset, metric), dataset, metric) for dataset in table.datasets for metric in METRICS}


def test_a_heading_sorts_down_then_up_then_not(browse, made) -> None:
    table = made[1]
    for dataset, column, metric in (("ku", 1, "hr@50"), ("tiny", 3, "ndcg@50")):
        figures = {row: table.figure(row, dataset, metric) for row in table.rows if row in ROWS[dataset]}
        known = {row: round(figure.mean, 2) for row, figure in figures.items() if figure is not None}
        assert len(set(known.values())) > 1 and len(known) == len(ROWS[dataset])
        click = f"{heading(dataset, column)}.click();"
        assert browse(click).first_column(dataset) == sorted(known, key=lambda row: -known[row])
        assert browse(click * 2).first_column(dataset) == sorted(known, key=lambda row: known[row])
    first = [row for row in table.rows if row in ROWS["ku"]]
    assert browse(f"{heading('ku', 1)}.click();" * 3).first_column() == first


def test_what_is_not_there_stands_last_up_and_down(browse, made) -> None:
    """The paper has no figure of the floor `popularity`."""
    paper = {row: made[1].figure(row, "ku", "hr@50").paper for row in made[1].rows}
    known = [row for row in paper if paper[row] is not None]
    click = f"{heading('ku', 3)}.click();"
    assert browse(click).first_column() == [*sorted(known, key=lambda row: -paper[row]), "popularity"]
    assert browse(click * 2).first_column() == [*sorted(known, key=lambda row: paper[row]), "popularity"]


def test_words_are_sorted_as_words_and_by_the_keyboard(browse, made) -> None:
    press = f"{heading('ku', 0)}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}));"
    assert browse(press).first_column() == sorted(ROWS["ku"], reverse=True)
    verdicts = (
        "Array.from(document.querySelectorAll('summary')).find(s => s.textContent === 'The paper\\'s figures')"
        ".parentElement.querySelector('th[data-column=\"1\"]').click();"
    )
    for clicks, down in ((1, True), (2, False)):
        tables = browse(verdicts * clicks).tables
        (words,) = [[line[1][0] for line in t if line] for t in tables if any("not comparable" in str(x) for x in t)]
        assert words == sorted(words, reverse=down) and len(set(words)) > 1
        assert all(words), "the floor, of which the paper has no figure, is not there"


def test_a_number_leads_to_the_manifests_of_its_runs(browse, made) -> None:
    text = made[0].read_text()
    place = re.search(r'href="(#s0-runs-ku-FedAvg-ours)"', text)
    assert place is not None
    assert browse().opened == set()
    assert browse(place=place[1]).opened == {"", place[1][1:]}, "the section, and the cell within it"
    section = text[text.index(f'id="{place[1][1:]}"') :]
    for record in made[1].cells["FedAvg+ours", "ku"].records:
        assert record.key in section and record.spec_hash in section


class Counting(http.server.BaseHTTPRequestHandler):
    """Counts requests and answers each with nothing."""

    def do_GET(self) -> None:
        self.server.hits.append(self.path)  # type: ignore[attr-defined]  # the server below has it
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        server.hits = []  # type: ignore[attr-defined]  # read by the handler above
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_nothing_is_asked_of_the_network(browse, made, server) -> None:
    text = made[0].read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", text), "an address outside the page"
    loaded = "document.documentElement.dataset.loaded = performance.getEntriesByType('resource').length;"
    assert browse(loaded).root["data-loaded"] == "0"
    image = f'<img src="http://127.0.0.1:{server.server_port}/x.png">'
    browse(extra=image)
    assert server.hits == [], "the page forbids it even to what somebody puts into it"
    browse(extra=image, change=lambda page: page.replace("Content-Security-Policy", "x-none"))
    assert server.hits == ["/x.png"], "and without that it would have been seen here"
