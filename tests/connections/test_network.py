"""The kernel tells when the network changes: in a network of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = """
import asyncio, subprocess
from daemon_core.connections.network import NetworkWatch

async def main():
    told = asyncio.Event()
    count = 0
    def changed():
        nonlocal count
        count += 1
        told.set()
    watch = NetworkWatch(changed, quiet_s=0.1)
    assert watch.start()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", "10.9.9.9/32", "dev", "lo"], check=True)
    async with asyncio.timeout(10):
        await told.wait()
    assert count == 1, count
    watch.close()
    watch.close()
    subprocess.run(["ip", "addr", "add", "10.9.9.8/32", "dev", "lo"], check=True)

asyncio.run(main())
"""


@pytest.mark.root
def test_a_change_is_told_once() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _CHILD],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
