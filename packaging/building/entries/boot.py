"""All that a program of a payload needs before its own first line, where modules are single files."""

import sys

sys.frozen = True  # type: ignore[attr-defined]
