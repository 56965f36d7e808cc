"""Storages that cannot be opened are one line that says what to do."""

from __future__ import annotations

import sqlite3
import sys

import optuna
import pytest
import sqlalchemy

from fedvlr_plugin.errors import ConfigError, ResultsError
from fedvlr_plugin.search.storage import open_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("nonsense", ConfigError, "is not a database URL .* write e.g. sqlite:///results/studies.db"),
        ("foo://h/x", ConfigError, "is not a database URL .*dialects:foo"),
        ("sqlite:////nowhere/at/all/x.db", ResultsError, "cannot be opened: unable to open database file"),
        ("postgresql+nodriver://u:secret@h/x", ConfigError, "nodriver"),
        ("postgresql+asyncpg://u:secret@h/x", ConfigError, "is asynchronous"),
    ],
)
def test_a_storage_that_cannot_be_opened(address: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        open_storage(address)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [
        ("postgresql+psycopg2://u:secret@h/x", "psycopg2", "psycopg2-binary"),
        ("mysql+pymysql://u:secret@h/x", "pymysql", "pymysql"),
    ],
)
def test_a_missing_driver_is_named_with_what_to_install(monkeypatch, address: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    expected = f"needs the Python package '{module}', which is not installed; run: pip install {package} "
    with pytest.raises(ConfigError, match=expected) as raised:
        open_storage(address)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_server_that_does_not_answer_is_one_line(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.OperationalError("connect", None, OSError("\nconnection refused\nIs it running?\n"))

    monkeypatch.setattr("sqlalchemy.engine.default.DefaultDialect.connect", refuse)
    monkeypatch.setattr("sqlalchemy.dialects.mysql.pymysql.MySQLDialect_pymysql.import_dbapi", lambda: sqlite3)
    with pytest.raises(ConfigError, match="no connection to 'mysql.*': connection refused; start the server") as raised:
        open_storage("mysql+pymysql://u:secret@h/x")
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("schema", [11, 99])
def test_a_storage_of_another_optuna_is_one_line_with_the_way_out(tmp_path, schema):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    open_storage(url).engine.dispose()
    with sqlite3.connect(tmp_path / "studies.db") as database:
        database.execute("update alembic_version set version_num = 'v9.9.0.a'")
        database.execute("update version_info set schema_version = ?", (schema,))
    with pytest.raises(ResultsError, match="another version of Optuna .*optuna storage upgrade --storage") as refused:
        open_storage(url)
    assert "\n" not in str(refused.value) and "$STORAGE_URL" not in str(refused.value)
