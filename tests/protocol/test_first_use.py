"""Structures that threads use first at the same time: prepared before, they are safe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CHILD = """
from __future__ import annotations
import sys, threading, msgspec
from daemon_core.protocol import first_use

sys.setswitchinterval(1e-6)
inner = "class I{n}_{i}(msgspec.Struct):\\n    a: int | None = None\\n    b: list[str] | None = None\\n"
for n in range(40):
    lines = [inner.format(n=n, i=i) for i in range(20)]
    lines.append(f"class O{n}(msgspec.Struct):\\n")
    lines += [f"    g{i}: list[I{n}_{i}] | None = None\\n" for i in range(20)]
    exec(compile("".join(lines), "structures", "exec", flags=annotations.compiler_flag), globals())
assert first_use.prepare() >= 40 * 21
for n in range(40):
    go = threading.Barrier(4)

    def use(kind=globals()[f"O{n}"]):
        go.wait()
        assert msgspec.json.decode(b'{"g5":[{"a":2}],"g19":[{"a":1}]}', type=kind).g19[0].a == 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_use_a_structure_first_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
