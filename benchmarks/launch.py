"""Starts a daemon as a benchmark wants it: says when its Python began, and when its ``main`` did.

``python benchmarks/launch.py FILE``: FILE gets both times (``time.time_ns``).
"""

import time

BEGAN = time.time_ns()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).parents[1])


def main() -> None:
    (marks,) = sys.argv[1:]
    from daemon_core import app

    with open(marks, "w") as stream:
        stream.write(f"{BEGAN} {time.time_ns()}")
    sys.argv[1:] = []
    app.main()


if __name__ == "__main__":
    main()
