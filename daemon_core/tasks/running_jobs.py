"""What a task is told of the jobs of its conversation that go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon_core.jobs.conversations import conversation_of
from daemon_core.tasks.briefs import JobLine

if TYPE_CHECKING:
    from daemon_core.tasks.life import TaskLife


def running_jobs(life: TaskLife) -> tuple[JobLine, ...]:
    """A line for each, oldest first."""
    keeper = life.engine.jobs
    if keeper is None:
        return ()
    conversation = conversation_of(life.record)
    jobs = [each.job for each in keeper.lives.values() if each.job.conversation == conversation]
    return tuple(
        JobLine(
            id=job.id,
            name=job.name,
            command=job.command,
            since=job.started_at or job.created_at,
            output_path=str(keeper.files.of(job.id) / "stdout"),
        )
        for job in sorted(jobs, key=lambda job: job.created_at)
        if job.status == "running" and not job.removed
    )
