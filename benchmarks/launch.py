"""Starts a daemon as a benchmark wants it: says when its Python began, and when its ``main`` did.

``python benchmarks/launch.py FILE [PROVIDER…]``: FILE gets both times (``time.time_ns``); the providers named
are driven as Claude Code is, so that there are more runtimes than families.
"""

import time

BEGAN = time.time_ns()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).parents[1])


def main() -> None:
    marks, *drivable = sys.argv[1:]
    if drivable:
        import msgspec

        from daemon_core.runtimes import providers

        known = tuple(
            msgspec.structs.replace(each, family="claude-stream-json", min_version="")
            if each.id in drivable
            else each
            for each in providers.PROVIDERS
        )
        providers.PROVIDERS = known  # type: ignore[misc]
    from daemon_core import app

    with open(marks, "w") as stream:
        stream.write(f"{BEGAN} {time.time_ns()}")
    sys.argv[1:] = []
    app.main()


if __name__ == "__main__":
    main()
