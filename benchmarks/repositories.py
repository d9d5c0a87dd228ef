"""First and repeated checkout of a repository of 5,000 files. ``python -m benchmarks repositories``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, median, spread
from daemon_core.workdirs.repositories import Repositories
from daemon_core.workdirs.repository_urls import parse_url

FILES = 5000
FILE_LINES = 60
REPEATS = 10
TOGETHER = 8


def measure() -> list[Row]:
    """The whole of it, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="ostler-bench-") as directory:
        return asyncio.run(_measure(Path(directory)))


async def _measure(root: Path) -> list[Row]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    source = await asyncio.to_thread(_source, root / "source", environ)
    url = parse_url(str(source), allow_local=True)
    repositories = Repositories(root / "repos", environ)
    number = 0

    async def checkout(*, same: int | None = None) -> float:
        nonlocal number
        number += 1
        task = number if same is None else same
        work_dir = root / "tasks" / f"{task:08x}"
        await asyncio.to_thread(work_dir.mkdir, parents=True, exist_ok=True)
        began = time.perf_counter()
        await repositories.checkout(url, workspace_id="w", work_dir=work_dir, task_id=f"{task:08x}")
        return time.perf_counter() - began

    cloned = await checkout()
    repeated = [await checkout() for _ in range(REPEATS)]
    again = [await checkout(same=1) for _ in range(REPEATS)]
    await asyncio.to_thread(_commit, source, environ)
    fetched = await checkout()
    began = time.perf_counter()
    await asyncio.gather(*(checkout() for _ in range(TOGETHER)))
    together = time.perf_counter() - began
    plain = [await asyncio.to_thread(_plain, source, root / f"plain-{turn}", environ) for turn in range(3)]
    return [
        Row("first checkout (clone and work tree)", cloned, "s", note=f"{FILES:,} files, local repository"),
        Row("repeated checkout (fetch and work tree)", median(repeated), "s", note=spread(repeated, "s")),
        Row("checkout of what is there already", median(again), "s", note=spread(again, "s")),
        Row("checkout after a commit to 500 files", fetched, "s"),
        Row(f"{TOGETHER} checkouts at once", together, "s"),
        Row("for comparison: plain git clone", median(plain), "s", note=spread(plain, "s")),
    ]


def _source(path: Path, environ: dict[str, str]) -> Path:
    path.mkdir()
    _git(path, environ, "init", "--quiet", "--initial-branch=main")
    for number in range(FILES):
        target = path / f"part{number % 100:02}" / f"file{number:04}.py"
        target.parent.mkdir(exist_ok=True)
        target.write_text("".join(f"value_{number}_{line} = {line * number}\n" for line in range(FILE_LINES)))
    _git(path, environ, "add", ".")
    _git(path, environ, "commit", "--quiet", "-m", "all")
    return path


def _commit(path: Path, environ: dict[str, str]) -> None:
    for number in range(0, FILES, 10):
        with open(path / f"part{number % 100:02}" / f"file{number:04}.py", "a") as file:
            file.write("more = 1\n")
    _git(path, environ, "commit", "--quiet", "-a", "-m", "more")


def _plain(source: Path, target: Path, environ: dict[str, str]) -> float:
    began = time.perf_counter()
    _git(source.parent, environ, "clone", "--quiet", f"file://{source}", str(target))
    return time.perf_counter() - began


def _git(path: Path, environ: dict[str, str], *arguments: str) -> None:
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0")
    subprocess.run(["git", *identity, *arguments], cwd=path, env=environ, check=True)
