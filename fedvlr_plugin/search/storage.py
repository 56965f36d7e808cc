"""Opens the database that studies live in: SQLite in a file, or any other by URL, with heartbeats and real locks.

A claim is a read followed by a write, which must be one step. PostgreSQL and MySQL lock the row (Optuna asks them to
with `SELECT ... FOR UPDATE`); SQLite ignores that, so here each of its transactions begins IMMEDIATE.
"""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Mapping

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from fedvlr_plugin.errors import ConfigError, ResultsError

HEARTBEAT_S, GRACE_S = 10, 60
OPEN_ATTEMPTS = 20
CONNECT_S = 10
EXAMPLES = "sqlite:///results/studies.db, postgresql+psycopg2://user@host/name, mysql+pymysql://user@host/name"
PACKAGES: Mapping[str, str] = {
    "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "pymysql": "pymysql",
    "MySQLdb": "mysqlclient", "mysql": "mysql-connector-python",
}  # fmt: skip  # module -> what to install
MADE_BY_ANOTHER = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry", "is locked")


def open_storage(url: str, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S) -> RDBStorage:
    """Open an Optuna storage with heartbeats; make it if there is none.

    Args:
        url: of any database SQLAlchemy knows: `sqlite:///results/studies.db`,
            `postgresql+psycopg2://user@host/name`, `mysql+pymysql://user@host/name`.
        heartbeat_s: seconds between two signs of life of a worker.
        grace_s: seconds without a sign of life after which a worker is taken for dead.

    Raises:
        ConfigError: no database URL, its driver is not installed, or the server does not answer.
        ResultsError: the database cannot be opened, or is of another version of Optuna.
    """
    parsed = check_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    arguments = _arguments(parsed)
    for attempt in range(OPEN_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = RDBStorage(url, engine_kwargs=arguments, heartbeat_interval=heartbeat_s, grace_period=grace_s)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            text = f"{error} {error.__cause__ or ''}"
            if attempt + 1 < OPEN_ATTEMPTS and any(sign in text for sign in MADE_BY_ANOTHER):
                time.sleep(0.2)
                continue
            raise ResultsError(
                f"the study storage '{_public(url)}' cannot be opened: {_first_line(error)}; check --storage URL"
            ) from None
        except RuntimeError as error:  # Optuna's word for a schema of another version
            raise ResultsError(
                f"the study storage '{_public(url)}' was made by another version of Optuna than the {optuna.__version__} that "
                f"is installed ({_first_line(error)}). If it is older, `optuna storage upgrade --storage {_public(url)}` "
                "upgrades it; else install its version, or name another storage with --storage URL or --results DIR"
            ) from None
        if sqlite:
            _serialise(storage.engine)
        return storage
    raise ResultsError(f"the study storage '{_public(url)}' cannot be opened; try again")


def check_url(url: str) -> sqlalchemy.URL:
    """Return the parsed URL of a database whose driver is installed and, unless it is a file, whose server answers.

    Raises:
        ConfigError: says what to install, to start or to write.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        dialect = parsed.get_dialect()
    except sqlalchemy.exc.ArgumentError as error:  # a dialect that SQLAlchemy does not know is one of these too
        raise ConfigError(
            f"--storage: '{_public(url)}' is not a database URL ({_first_line(error)}); write e.g. {EXAMPLES}"
        ) from None
    if dialect.is_async:
        raise ConfigError(f"--storage: the driver of '{_public(url)}' is asynchronous; write e.g. {EXAMPLES}")
    try:
        dialect.import_dbapi()
    except ImportError as error:
        module = (error.name or dialect.driver).partition(".")[0]
        package = PACKAGES.get(module, module)
        raise ConfigError(
            f"--storage: '{_public(url)}' needs the Python package '{module}', which is not installed; "
            f"run: pip install {package} (or name another driver; e.g. {EXAMPLES})"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        _test_connection(parsed)
    return parsed


def _test_connection(url: sqlalchemy.URL) -> None:
    """Connect once, to see whether the server answers.

    Raises:
        ConfigError: it does not.
    """
    engine = sqlalchemy.create_engine(url, **_arguments(url))
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        raise ConfigError(
            f"--storage: no connection to '{_public(str(url))}': {_first_line(error)}; start the server, make the "
            "database (Optuna makes the tables), and check user and password"
        ) from None
    finally:
        engine.dispose()


def _arguments(url: sqlalchemy.URL) -> dict[str, object]:
    """Return the engine's arguments: how long to wait for a lock of SQLite, or for a server."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 120}}
    known = url.get_backend_name() in ("postgresql", "mysql", "mariadb")
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S} if known else {}}


def _first_line(error: BaseException) -> str:
    """Return the first line of the driver's message, or of SQLAlchemy's where it has none."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Make every SQLite transaction take the write lock at once, so that read-then-write is one step."""

    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(engine, "connect", connect)
    sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # connections made before do not have it


def _public(url: str) -> str:
    """Return the URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url.rpartition("@")[2]
