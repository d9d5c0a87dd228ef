"""The desktop of a payload, from source: the real one with a version stamped on it.

``python tests/support/payload_desktop.py VERSION [ARGUMENT...]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])


def main(version: str) -> None:
    import daemon_core

    daemon_core.__version__ = version
    from desktop.app import main as run

    run()


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    main(chosen)
