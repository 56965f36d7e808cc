"""`fedvlr data` from the outside: what it prints, what it writes, and one line for each mistake."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedvlr_plugin.cli.main import app
from fedvlr_plugin.data.preparation import recipes
from fedvlr_plugin.data.preview import write_page
from fedvlr_plugin.data.recbole.loader import prepare

RUNNER = CliRunner()
ROOT = Path(os.environ["FEDVLR_DATA"]) if "FEDVLR_DATA" in os.environ else None
needs_data = pytest.mark.skipif(ROOT is None, reason="FEDVLR_DATA names no data root with the real data sets")


def call(*arguments, code=0):
    result = RUNNER.invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def raw_ku(folder):
    folder.mkdir(parents=True)
    (folder / "KU_pair.csv").write_text("".join(f"{i},{u},{i}\n" for u in range(6) for i in range(6)))
    (folder / "KU_item.csv").write_text("".join(f"{i},x,red <b>shoe</b> {'abcdef'[i]}\n" for i in range(6)))
    return folder


def test_list_names_what_is_there_and_a_damaged_folder_hides_nothing(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/inter.csv").write_text("userID,itemID\n1,2\n")
    output = call("list", "--data-root", tmp_path)
    assert "ml-100k" in output and "100,000" in output and "planted" in output
    assert "broken cannot be used: broken/inter.csv lacks the column(s) timestamp" in output
    assert "prepare NAME): beauty, cards, ml, ku, dance, food, movie" in output


def test_prepare_verify_features_and_peek_in_a_row(tmp_path):
    raw_ku(tmp_path / "raw")
    output = call("prepare", "KU", "--raw", tmp_path / "raw", "--out", tmp_path / "data")
    assert "ku: 6 users, 6 items, 36 interactions in the raw files" in output
    assert f"written to {tmp_path / 'data/ku'}; other commands find it with --data-root {tmp_path / 'data'}\n" in output
    assert "differs from Table 1: users: Table 1 has 204, here 6 (-198)" in output
    output = call("verify", "ku", "--data-root", tmp_path / "data", code=1)
    assert "differs from Table 1: items: Table 1 has 560, here 6 (-554)" in output
    output = call("features", "ku", "--encoder", "tfidf", "--model", "3", "--data-root", tmp_path / "data")
    assert "text: 6 of 6 items, 3 columns, by TF-IDF + SVD width 3" in output
    assert prepare("ku", tmp_path / "data").features["text"].dim == 3
    output = call("peek", "ku", "--data-root", tmp_path / "data", "--html", tmp_path / "ku.html", "--users", 2)
    page = (tmp_path / "ku.html").read_text()
    assert page.count("<section>") == 2 and "red &lt;b&gt;shoe&lt;/b&gt; f" in page and "<b>" not in page


def test_import_and_export(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = "".join(f"{u},{(u + k) % 9},1.0,{k}\n" for u in range(6) for k in range(6))
    (folder / "inter.csv").write_text("userID,itemID,rating,timestamp\n" + rows)
    call("import", folder, "--out", tmp_path / "atomic")
    assert (tmp_path / "atomic/shop/shop.inter").is_file()
    call("export", tmp_path / "atomic/shop", "--out", tmp_path / "back")
    assert (tmp_path / "back/shop/inter.csv").read_text().splitlines()[0].endswith("split_label")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="the extra report (matplotlib) is not installed")
def test_info_prints_and_draws(tmp_path):
    output = call("info", "planted", "--png", tmp_path / "planted.png")
    assert "modality vision comes from: planted" in output and "the most active tenth of the users" in output
    assert (tmp_path / "planted.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "planted.png").read_bytes()
    call("info", "planted", "--png", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == first


def test_info_writes_nothing_unless_a_place_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = call("info", "planted")
    assert "get one with: fedvlr data info planted --png planted.png" in output and "picture: " not in output
    assert not list(tmp_path.iterdir())


def test_download_by_hand_or_by_program(tmp_path, monkeypatch):
    output = call("prepare", "food", "--download", "--out", tmp_path, code=2)
    assert "food cannot be fetched by a program: get Bili_Food_pair.csv and Bili_Food_item.csv from https://" in output
    output = call("prepare", "beauty", "--out", tmp_path, code=2)
    assert "no raw files at" in output and "All_Beauty.csv" in output and "or fetch them with --download" in output
    monkeypatch.setattr("fedvlr_plugin.data.preparation.download.time.sleep", lambda _: None)
    nowhere = recipes.Recipe("ml", recipes.MovieLens(), (recipes.Download("http://127.0.0.1:9/ml.zip", "ml.zip"),))
    monkeypatch.setitem(recipes.RECIPES, "ml", nowhere)
    output = call("prepare", "ml", "--download", "--out", tmp_path, code=2)
    assert "error: http://127.0.0.1:9/ml.zip: cannot be reached" in output and "put it as 'ml.zip' into" in output
    two = tuple(recipes.Download(f"http://127.0.0.1:9/{name}", name) for name in ("a.csv", "b.jsonl"))
    monkeypatch.setitem(recipes.RECIPES, "cards", recipes.Recipe("cards", recipes.Amazon("Gift_Cards"), two))
    output = call("prepare", "cards", "--download", "--out", tmp_path, code=2)
    assert "fetch http://127.0.0.1:9/a.csv and http://127.0.0.1:9/b.jsonl by hand into" in output


def test_a_misspelt_command_is_told_the_nearest_and_help_has_an_example():
    assert "No such command 'prepar'. Did you mean 'prepare'?" in call("prepar", code=2)
    assert "Did you mean 'data'?" in RUNNER.invoke(app, ["dta"]).output
    assert "Example: fedvlr data prepare ml" in call("prepare", "--help")


def test_ctrl_c_is_one_line(monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedvlr_plugin.features.encode.encode_dataset", stop)
    output = call("features", "ku", "--data-root", tmp_path, code=130)
    assert output == "stopped by Ctrl-C; what is done is kept, the same command goes on\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("info", "plantd"), "error: unknown data set 'plantd'. Did you mean 'planted'?"),
        (("verify", "planted"), "error: 'planted' is not in Table 1"),
        (("prepare", "beuty"), "Did you mean 'beauty'?"),
        (("peek", "planted", "--images", "nowhere"), "the folder of images 'nowhere' is not there"),
        (("features", "ml-100k", "--encoder", "tfidf"), "brings its own features"),
        (("import", "nowhere"), "has no inter.csv"),
        (("import", "nowhere", "--name", "../x"), "'../x' is no name for a data set"),
        (("list", "--data-root", "nowhere"), "--data-root: 'nowhere' is not a folder"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDVLR_DATA", raising=False)
    output = call(*arguments, code=2)
    assert message in output and output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_page_marks_held_out_and_cold_items(tmp_path):
    data = prepare("planted")
    posters = write_page(data, {}, tmp_path / "p.html", users=3, items=4)
    page = (tmp_path / "p.html").read_text()
    assert posters == 0 and page.count('class="test') == 3 and page.count('class="valid') == 3 and "(no title)" in page
    assert np.all(data.interactions.test >= 0)


@needs_data
def test_real_sets(tmp_path):
    output = call("verify", "ml", "--data-root", ROOT)
    assert "equals Table 1" in output
    output = call("info", "ku", "--data-root", ROOT)
    assert "88 of 204 (43.1 %)" in output and "3,489 rows, 5 of which repeat a pair" in output
    page = tmp_path / "ml.html"
    posters = ROOT / "raw/movielens/posters"
    if find_spec("PIL") is not None:
        call("peek", "ml", "--data-root", ROOT, "--html", page, "--images", posters, "--users", 3)
        text = page.read_text()
        assert text.count("data:image/jpeg;base64,") > 5 and "(1995)" in text
