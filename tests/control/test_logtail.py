"""The end of the log, and what is added, across rotation."""

from __future__ import annotations

import logging
import logging.handlers
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon_core.control import logtail


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and b"\r" not in line)),
    st.integers(0, 20),
)
def test_the_tail_is_the_last_lines(tmp_path_factory: object, lines: list[bytes], count: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "log"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        assert logtail.tail(path, count) == (lines[-count:] if count else [])


def test_the_tail_begins_in_the_rotated_file(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_bytes(b"1\n2\n3\n")
    (tmp_path / "log").write_bytes(b"4\n")
    assert logtail.tail(tmp_path / "log", 3) == [b"2", b"3", b"4"]
    assert logtail.tail(tmp_path / "absent", 3) == []


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%07d %s\n" % (n, b"x" * 50) for n in range(100_000)))
    assert [line[:7] for line in logtail.tail(path, 2)] == [b"0099998", b"0099999"]


def test_following_loses_no_line_over_many_rotations(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=40_000, backupCount=2)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("before")
    done = threading.Event()

    def write() -> None:
        # Slower than the reader looks: more than one rotation between two looks cannot be followed.
        for number in range(3000):
            logger.info("%06d", number)
            if number % 100 == 0:
                done.wait(0.02)
        done.set()

    writer = threading.Thread(target=write)
    found = []
    follower = logtail.follow(path, 1, stopped=done.is_set)
    found.append(next(follower))
    writer.start()
    found.extend(follower)
    writer.join()
    handler.close()
    assert found == [b"before", *(b"%06d" % number for number in range(3000))]
