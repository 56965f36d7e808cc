"""Opens the database that studies live in: SQLite in a file, or any other by URL, with heartbeats and real locks.

A claim is a read followed by a write, which must be one step. PostgreSQL and MySQL lock the row (Optuna asks them to
with `SELECT ... FOR UPDATE`); SQLite ignores that, so here each of its transactions begins IMMEDIATE. Imports optuna,
sqlalchemy and `errors`.
"""

from __future__ import annotations

import sqlite3
import time
import warnings

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from fedvlr_plugin.errors import ConfigError, ResultsError

HEARTBEAT_S, GRACE_S = 10, 60
OPEN_ATTEMPTS = 20
MADE_BY_ANOTHER = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry", "is locked")


def open_storage(url: str, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S) -> RDBStorage:
    """Opens (and makes, if need be) an Optuna storage with heartbeats.

    Args:
        url: of any database SQLAlchemy knows: `sqlite:///results/studies.db`,
            `postgresql+psycopg2://user@host/name`, `mysql+pymysql://user@host/name`.
        heartbeat_s, grace_s: how often a worker shows that it lives, and how long its silence is borne.

    Raises:
        ConfigError: no database URL, or its driver is not installed. ResultsError: it cannot be opened.
    """
    sqlite = url.startswith("sqlite")
    arguments: dict[str, object] = {"connect_args": {"timeout": 120}} if sqlite else {"pool_pre_ping": True}
    for attempt in range(OPEN_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = RDBStorage(url, engine_kwargs=arguments, heartbeat_interval=heartbeat_s, grace_period=grace_s)
        except ImportError as error:
            raise ConfigError(f"--storage: the driver of '{_public(url)}' is not installed: {error}") from None
        except sqlalchemy.exc.ArgumentError:
            raise ConfigError(
                f"--storage: '{_public(url)}' is not a database URL; write e.g. sqlite:///results/studies.db"
            ) from None
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            text = f"{error} {error.__cause__ or ''}"
            if attempt + 1 < OPEN_ATTEMPTS and any(sign in text for sign in MADE_BY_ANOTHER):
                time.sleep(0.2)
                continue
            cause = str(error.__cause__ or error).splitlines()[0]
            raise ResultsError(
                f"the study storage '{_public(url)}' cannot be opened: {cause}; check --storage URL"
            ) from None
        if sqlite:
            _serialise(storage.engine)
        return storage
    raise ResultsError(f"the study storage '{_public(url)}' cannot be opened; try again")


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Makes every SQLite transaction take the write lock at once, so that read-then-write is one step."""

    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(engine, "connect", connect)
    sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # connections made before do not have it


def _public(url: str) -> str:
    """The URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url.rpartition("@")[2]
