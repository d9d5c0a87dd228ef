"""What Ostler adds to an agent: the one-tool task by the bare CLI and by Ostler, in turns, in one run.

The real CLIs (the pinned ones of the tests) against a scripted model on loopback that answers at once: start
of the process, one shell call that writes a file, final text, exit. For Ostler the time runs from before the
request that adds the task until the hub has its end; the processor time is that of everything the task has
started (the shim's children are counted with it) and of the daemon. Nobody looks on meanwhile: the times are
the hub's own. Part of what is added is the agent's own work with what Ostler gives it: the brief, and an MCP
server, which is left out in every third run to tell how much that is.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes
from benchmarks.homes import BenchHome
from benchmarks.rows import Row, median, spread
from tests.support import npm_clis
from tests.support.claude_cli import claude_env
from tests.support.codex_cli import codex_env
from tests.support.model_responses import ResponsesServer
from tests.support.model_server import CallTool, ModelServer, Say

ROUNDS = 12
WARM_UP = 2
AIM = "< 5"
_PR_SET_CHILD_SUBREAPER = 36
_COMMAND = "echo hi > note.txt; cat note.txt"


class _Agent(NamedTuple):
    """How one CLI is measured. ``bare`` are its arguments; the prompt is its standard input."""

    name: str
    server: Callable[[], ModelServer]
    step: CallTool
    env: Callable[[Path, str], dict[str, str]]
    bare: tuple[str, ...]


_AGENTS = (
    _Agent(
        "claude",
        ModelServer,
        CallTool("Bash", {"command": _COMMAND}),
        claude_env,
        ("-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "bypassPermissions"),
    ),
    _Agent(
        "codex",
        ResponsesServer,
        CallTool("exec_command", {"cmd": _COMMAND}),
        codex_env,
        ("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-"),
    ),
)


class _Cost(NamedTuple):
    wall_s: float
    cpu_s: float


def measure() -> list[Row]:
    """All agents, one after the other."""
    libc = ctypes.CDLL(None, use_errno=True)
    # What a daemon leaves behind (its shims) becomes ours, so that its processor time is told.
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "processes cannot be inherited")
    try:
        return [row for agent in _AGENTS for row in _measure(agent)]
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _measure(agent: _Agent) -> list[Row]:
    program = npm_clis.install(agent.name)
    bare: list[_Cost] = []
    ours: list[_Cost] = []
    plain: list[_Cost] = []
    with tempfile.TemporaryDirectory(prefix="ost-bench-") as folder, agent.server() as model:
        root = Path(folder)
        url = model.scenario("task", [agent.step, Say("Done.")], each_turn=True)
        environ = agent.env(root / "user", url)
        place = BenchHome(root, environ={k: v for k, v in environ.items() if k != "PATH"}, claude=False)
        npm_clis.link(agent.name, place.bin)
        project = root / "project"
        project.mkdir()
        try:
            place.start()
            for _ in range(ROUNDS + WARM_UP):
                bare.append(_bare(agent, program, environ, project))
                _offer(place, True)
                ours.append(_ours(agent, place, project))
                _offer(place, False)
                plain.append(_ours(agent, place, project))
            place.stop()
        finally:
            place.close()
    rounds = [each[WARM_UP:] for each in (bare, ours, plain)]
    walls = [[each.wall_s for each in found] for found in rounds]
    cpus = [[each.cpu_s for each in found] for found in rounds]
    added_ms = (median(walls[1]) - median(walls[0])) * 1000
    wall = (median(walls[1]) / median(walls[0]) - 1) * 100
    plain_ms = (median(walls[2]) - median(walls[0])) * 1000
    plain_wall = (median(walls[2]) / median(walls[0]) - 1) * 100
    cpu = (median(cpus[1]) / median(cpus[0]) - 1) * 100
    return [
        Row(f"{agent.name}: bare", median(walls[0]), "s", "", spread(walls[0], "s")),
        Row(f"{agent.name}: by Ostler", median(walls[1]), "s", "", spread(walls[1], "s")),
        Row(f"{agent.name}: added", wall, "%", AIM, f"{added_ms:.0f} ms"),
        Row(f"{agent.name}: added without the MCP server", plain_wall, "%", AIM, f"{plain_ms:.0f} ms"),
        Row(f"{agent.name}: processor time, bare", median(cpus[0]), "s", "", spread(cpus[0], "s")),
        Row(f"{agent.name}: processor time, by Ostler", median(cpus[1]), "s", "", f"{cpu:+.1f} %"),
    ]


def _bare(agent: _Agent, program: Path, environ: dict[str, str], project: Path) -> _Cost:
    (project / "note.txt").unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [str(program), *agent.bare],
        input=b"Write the note.",
        cwd=project,
        env=environ,
        capture_output=True,
        check=False,
        timeout=60,
    )
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0 or not (project / "note.txt").exists():
        raise RuntimeError(f"{agent.name}: {done.stderr.decode('utf-8', 'replace')[-500:]}")
    return _Cost(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _offer(place: BenchHome, offer: bool) -> None:
    place.set(f"[mcp]\noffer = {str(offer).lower()}\n")
    place.call("POST", "/v1/settings/reload")


def _ours(agent: _Agent, place: BenchHome, project: Path) -> _Cost:
    (project / "note.txt").unlink(missing_ok=True)
    _reap(place.pid)
    daemon_s = processes.cpu_s(place.pid)
    began = time.time()
    task = place.add("Write the note.", agent.name, directory=str(project))
    # Looked for in a file and seldom: asking the daemon would be work for it, just when it has some.
    while not place.hub("SELECT 1 FROM task WHERE id = ? AND ended_at IS NOT NULL", task):
        time.sleep(0.05)
    done = place.wait(task)
    if done["status"] != "completed" or not (project / "note.txt").exists():
        raise RuntimeError(f"{agent.name}: {done['error']}")
    place.wait_delivered(task)
    wall_s = place.task_times(task)["ended_at"] / 1e6 - began
    cpu_s = processes.cpu_s(place.pid) - daemon_s
    deadline = time.monotonic() + 10.0
    while not (reaped := _reap(place.pid)):
        # The shim goes a moment after the end.
        if time.monotonic() > deadline:
            raise TimeoutError("the shim of the task has not come home")
        time.sleep(0.005)
    return _Cost(wall_s, cpu_s + sum(reaped))


def _reap(daemon: int) -> list[float]:
    """Processor times of what has ended here and was not the daemon."""
    found = []
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if int(child) == daemon:
            continue
        pid, _, usage = os.wait4(int(child), os.WNOHANG)
        if pid:
            found.append(usage.ru_utime + usage.ru_stime)
    return found
