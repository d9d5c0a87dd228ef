"""A damaged journal is set aside, and what can still be read of it is carried over."""

from __future__ import annotations

import datetime
import os
import sqlite3
from pathlib import Path

from daemon_core.journal.schema import TABLES

_COMPANIONS = ("", "-wal", "-shm")


class _FreshError(Exception):
    """It is the fresh journal that failed, not the damaged one."""

    def __init__(self, failure: sqlite3.Error) -> None:
        self.failure = failure
        super().__init__(str(failure))


def set_aside(path: Path) -> Path:
    """Rename the database and its companions; gives the new path of the database. Nothing is deleted."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in _COMPANIONS:
        source = Path(f"{path}{suffix}")
        if source.exists():
            os.replace(source, f"{target}{suffix}")
    return target


def put_back(damaged: Path, path: Path) -> None:
    """Undo ``set_aside``: the fresh journal that took its place holds nothing and goes."""
    for suffix in _COMPANIONS:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        source = Path(f"{damaged}{suffix}")
        if source.exists():
            os.replace(source, f"{path}{suffix}")


def copy_readable(damaged: Path, fresh: sqlite3.Connection) -> dict[str, int]:
    """Copy every row that can still be read into the fresh journal; gives the number per table.

    The damaged file is opened read-only. Rows are read one by one around the damage: a page that cannot be
    read ends the scan in one direction, so the table is scanned from both ends. Raises ``sqlite3.Error`` if
    the fresh journal cannot be written: nothing is carried over then.
    """
    copied: dict[str, int] = {}
    fresh.execute("BEGIN IMMEDIATE")
    try:
        source = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
        # Makes SQLite read on in a file that is shorter than its header says.
        source.execute("PRAGMA writable_schema = ON")
    except sqlite3.Error:
        fresh.rollback()
        return copied
    try:
        for table in TABLES:
            try:
                known = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})")]
                there = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
            except sqlite3.Error:
                continue
            columns = [name for name in known if name in there]
            if not columns:
                continue
            names = ", ".join(columns)
            marks = ", ".join("?" * len(columns))
            count = 0
            for direction in ("", " ORDER BY 1 DESC"):
                try:
                    for row in source.execute(f"SELECT {names} FROM {table}{direction}"):
                        try:
                            count += fresh.execute(
                                f"INSERT OR IGNORE INTO {table}({names}) VALUES ({marks})", row
                            ).rowcount
                        except sqlite3.IntegrityError:
                            continue  # a row that breaks a rule of the schema is part of the damage
                        except sqlite3.Error as error:
                            raise _FreshError(error) from error
                except sqlite3.Error:
                    continue  # the damage begins here; the other direction may give the rest
            copied[table] = count
        fresh.commit()
    except _FreshError as error:
        fresh.rollback()
        raise error.failure from None
    except sqlite3.Error:
        fresh.rollback()
        raise
    finally:
        source.close()
    return copied
