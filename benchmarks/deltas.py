"""What an update costs after a small change: the delta's size, and the time and memory of applying it.

A function more in one module of the daemon and one of the desktop is a small change; so is a constant more in
each of our modules, which is what a release after a few weeks comes to. The bundle is the real one.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.rows import Row

sys.path.append(str(Path(__file__).parents[1] / "packaging"))  # no package: its name is taken

from building import manifest, payload, stamping
from releasing import archives, deltas

PLACE: Final = Path(__file__).parents[1]
AIM: Final = "< 3"
MB: Final = 1e6
FEW: Final = ("daemon_core/control/facade.py", "desktop/tray/view.py")
ADDED: Final = "\n\ndef _added_for_the_measurement(text: str) -> str:\n    return text.upper() * 42\n"
_APPLY: Final = """
import json, re, sys, time
from pathlib import Path
from daemon_core.updates import delta
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = most()
began = time.perf_counter()
delta.apply(*(Path(each) for each in sys.argv[1:]))
print(json.dumps([time.perf_counter() - began, most() - before]))
"""


def measure() -> list[Row]:
    built = payload.build() / "payload"
    ours = sorted(
        path.relative_to(PLACE).as_posix()
        for room in ("daemon_core", "desktop")
        for path in (PLACE / room).rglob("*.py")
    )
    with tempfile.TemporaryDirectory(prefix="ostler-bench-", dir=built.parent) as name:
        return [
            *_rows("small change", built, Path(name) / "few", FEW, AIM),
            *_rows("each of our modules changed", built, Path(name) / "many", ours, ""),
        ]


def _rows(what: str, built: Path, work: Path, sources: Iterable[str], aim: str) -> list[Row]:
    work.mkdir()
    new = stamping.stamp(built, "99.0", work / "new")
    for source in sources:
        _change(new, source)
    manifest.write_manifest(new)
    began = time.perf_counter()
    made = deltas.make(built, new, work / "delta")
    took = time.perf_counter() - began
    done = subprocess.run(
        [sys.executable, "-c", _APPLY, str(built), str(work / "delta"), str(work / "applied")],
        cwd=PLACE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    applied_s, memory_kb = json.loads(done.stdout)
    archives.check(work / "applied")
    return [
        Row(f"delta, {what}", made.size / MB, "MB", aim, f"{len(made.patched) + len(made.whole)} files"),
        Row(f"making it, {what}", took, "s"),
        Row(f"applying it, {what}", applied_s, "s", "", "the whole version copied and checked"),
        Row(f"memory of applying it, {what}", memory_kb / 1024, "MiB"),
    ]


def _change(new: Path, source: str) -> None:
    """Compile a module with a little more in it, as the bundler does. Files are shared with the original, so
    a new one takes the place of the old."""
    target = new / "_internal" / Path(source).with_suffix(".pyc")
    if not target.exists():
        return  # a module that is not in the bundle
    code = compile((PLACE / source).read_text() + ADDED, source, "exec", dont_inherit=True)
    target.unlink()
    target.write_bytes(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
