"""How long a task's directory takes to prepare and to be given back: brief, context files, skills,
manifest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Row
from daemon_core.protocol.wire import Agent, Skill, SkillFile, Task
from daemon_core.tasks.preparing import wanted_of
from daemon_core.workdirs import TaskDirectories
from daemon_core.workdirs.environments import Environments
from tests.support.layouts import layout_of

ROUNDS = 200
SKILLS = 5
FILES = 4


def measure() -> list[Row]:
    """Preparation of new, reused and users' directories; the roll-back of the last."""
    skills = [
        Skill(
            id=f"s{number}",
            name=f"Skill {number}",
            content="# How\n" + "text\n" * 200,
            files=[SkillFile(path=f"ref/{each}.md", content="x" * 4000) for each in range(FILES)],
        )
        for number in range(SKILLS)
    ]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ost-bench-") as folder:
        base = Path(folder)
        directories = TaskDirectories(base / "workspaces")
        environments = Environments(base / "prepared")
        user = base / "project"
        user.mkdir()
        (user / "AGENTS.md").write_text("mine\n" * 100)
        reused = directories.prepare("w", "reused", "")

        def lay_out(work_dir: Path, *, user_owned: bool, provider: str, with_skills: bool) -> None:
            agent = Agent(id="a", name="Bo", instructions="Be kind.", skills=skills if with_skills else None)
            task = Task(id="t", chat_session_id="c", workspace_id="w", agent=agent)
            environments.prepare(
                wanted_of(
                    task, layout=layout_of(provider), work_dir=work_dir, user_owned=user_owned,
                    run_dir=base / "run", hub=True, environ={},
                )
            )  # fmt: skip

        def fresh(number: int, with_skills: bool) -> None:
            made = directories.prepare("w", f"{number:08x}{int(with_skills)}", "")
            lay_out(made, user_owned=False, provider="claude", with_skills=with_skills)

        many = f"{SKILLS} skills of {FILES + 1} files"
        cases: list[tuple[str, Callable[[int], None]]] = [
            ("new directory, no skills", lambda n: fresh(n, False)),
            (f"new directory, {many}", lambda n: fresh(n, True)),
            (
                f"reused directory, {many}",
                lambda n: lay_out(reused, user_owned=False, provider="claude", with_skills=True),
            ),
            (
                "user's directory, claude, no skills",
                lambda n: lay_out(user, user_owned=True, provider="claude", with_skills=False),
            ),
            (
                f"user's directory, block in AGENTS.md, {many}",
                lambda n: lay_out(user, user_owned=True, provider="opencode", with_skills=True),
            ),
        ]
        for name, work in cases:
            rows += _timed(name, work)
        spent = []
        for _ in range(ROUNDS):
            lay_out(user, user_owned=True, provider="opencode", with_skills=True)
            began = time.perf_counter()
            environments.roll_back(user, user_owned=True)
            spent.append(time.perf_counter() - began)
        rows += _rows(f"roll-back, {many}", spent)
    return rows


def _timed(name: str, work: Callable[[int], None]) -> list[Row]:
    spent = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        work(number)
        spent.append(time.perf_counter() - began)
    return _rows(name, spent)


def _rows(name: str, spent: list[float]) -> list[Row]:
    ordered = sorted(spent)
    return [
        Row(f"{name}, p50", ordered[len(ordered) // 2] * 1000, "ms"),
        Row(f"{name}, p99", ordered[len(ordered) * 99 // 100] * 1000, "ms"),
    ]
