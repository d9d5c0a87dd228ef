"""From a task as claimed to what it finds in its directory: brief, context files, markers, skills.

``wanted_of`` says what, ``workdirs.environments`` writes it, and ``TaskFiles`` keeps the two ends of one life
of a task apart: what is being written while the task ends is taken out after it, never beside it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from daemon_core.protocol.wire import Task
from daemon_core.tasks.briefs import HUB_COMMANDS, JobLine, Surroundings, brief_of
from daemon_core.tasks.failpoints import reach
from daemon_core.tasks.plain import plain_id, plain_name, quoted
from daemon_core.tasks.prompts import kind_of, title_of
from daemon_core.workdirs.environments import OWN_FOLDER, Environments, Layout, Marker, Prepared, Wanted
from daemon_core.workdirs.skills import PlacedSkill

log = logging.getLogger(__name__)

MARKER_NAME: Final = f"{OWN_FOLDER}/task.json"
MANAGED_BY: Final = "ostler-task"
MULTICA_MARKER_NAME: Final = ".multica/daemon_task_context.json"
MULTICA_MANAGED_BY: Final = "multica-daemon-task"
"""Name and content that the command line of Multica servers looks for, upwards from where it is called."""

CARD_NAME: Final = "context.md"
RESOURCES_NAME: Final = "project/resources.json"


def wanted_of(
    task: Task,
    *,
    layout: Layout,
    work_dir: Path,
    user_owned: bool,
    run_dir: Path,
    hub: bool,
    environ: Mapping[str, str],
    jobs: Sequence[JobLine] = (),
    commands: frozenset[str] = HUB_COMMANDS,
    settings: Mapping[str, bytes] | None = None,
    settings_anywhere: bool = False,
) -> Wanted:
    """What a task is to find in its directory.

    Args:
        layout: Where the provider looks; one that looks nowhere (a shell) gets neither brief nor skills.
        hub: The task is of the embedded server: it has no issue and no project to tell of.
        environ: What the run's environment begins with.
        jobs: Running jobs of the conversation, for the brief.
        commands: The groups of commands that a task of the hub is told of.
        settings: Files of the provider's settings.
        settings_anywhere: Whether they are for a user's directory, too.
    """
    context = {} if hub else context_of(task)
    agent = task.agent
    fields = {"agent_id": task.agent_id, "issue_id": task.issue_id or ""}

    def brief(skills: Sequence[PlacedSkill], folder: str) -> str:
        where = Surroundings(
            work_dir=str(work_dir),
            user_owned=user_owned,
            hub=hub,
            context_folder=folder if context else "",
            context_files=tuple(context),
            jobs=tuple(jobs),
            commands=commands,
        )
        return brief_of(task, where, skills)

    multica = Marker(path=MULTICA_MARKER_NAME, managed_by=MULTICA_MANAGED_BY, fields=fields)
    return Wanted(
        label=task.id,
        layout=layout,
        work_dir=work_dir,
        user_owned=user_owned,
        run_dir=run_dir,
        brief=None if layout.way == "none" else brief,
        skills=() if layout.way == "none" else tuple((agent.skills if agent else None) or ()),
        context=context,
        markers=(Marker(path=MARKER_NAME, managed_by=MANAGED_BY, fields={"task_id": task.id, **fields}),),
        settings=settings or {},
        settings_anywhere=settings_anywhere,
        environ=environ,
        user_markers=() if hub else (multica,),
    )


def context_of(task: Task) -> dict[str, bytes]:
    """The context files by name: a card of the task, and the project's resources if there is a project."""
    files = {CARD_NAME: _card(task).encode("utf-8", "replace")}
    if task.project_id:
        resources = {
            "project_id": task.project_id,
            "project_title": task.project_title or "",
            "project_description": task.project_description or "",
            "resources": [
                {
                    "id": each.id,
                    "resource_type": each.resource_type,
                    "resource_ref": each.resource_ref,
                    **({"label": each.label} if each.label else {}),
                }
                for each in task.project_resources or []
            ],
        }
        files[RESOURCES_NAME] = msgspec.json.format(msgspec.json.encode(resources), indent=2) + b"\n"
    return files


def _card(task: Task) -> str:
    kind = kind_of(task)
    lines = [f"# {plain_name(title_of(task), 120)}", "", f"- task: {plain_id(task.id)}, kind: {kind}"]
    facts = (
        ("issue", task.issue_id),
        ("comment", task.trigger_comment_id),
        ("chat", task.chat_session_id),
        ("autopilot", task.autopilot_id),
        ("autopilot run", task.autopilot_run_id),
        ("project", task.project_id),
        ("parent issue", task.parent_issue_id),
    )
    lines += [f"- {name}: {plain_id(value)}" for name, value in facts if value]
    for name, text in (
        ("Request", task.quick_create_prompt),
        ("Instructions of the autopilot", task.autopilot_description if kind == "autopilot" else None),
        ("Note from whoever handed it over", task.handoff_note),
    ):
        if text:
            lines += ["", f"## {name}", "", quoted(text)]
    skills = (task.agent.skills if task.agent else None) or []
    if skills:
        lines += ["", "## Skills", "", *(f"- {plain_name(skill.name)}" for skill in skills)]
    return "\n".join(lines) + "\n"


class TaskFiles:
    """The files of ours in the directory of one task. The methods touch the disk: call them in a thread."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._order = threading.Lock()
        self._over = False
        self._directory: Path | None = None
        self.prepared: Prepared | None = None

    def lay_out(self, wanted: Wanted) -> Prepared:
        """Write what the task is to find. Raises ``Refused`` and ``OSError``."""
        with self._order:
            if self._over:
                return Prepared()  # it ended while this waited for a thread
            self._directory = wanted.work_dir if wanted.user_owned else None
            prepared = self._environments.prepare(wanted, step=lambda: reach("environment_write"))
            for note in prepared.notes:
                log.info("task %s: %s", wanted.label, note)
            self.prepared = prepared
            return prepared

    def take_out(self, task_id: str, directory: str) -> None:
        """The task is over: its files leave the user's directory. (One of Ostler's own keeps them until the
        next task is prepared there.)

        Args:
            directory: The user's, as recorded; a task that ended in mid-preparation has none recorded yet.
        """
        with self._order:
            self._over = True
            place = self._directory or (Path(directory) if directory else None)
            if place is None:
                return
            try:
                for done in self._environments.roll_back(
                    place, user_owned=True, label=task_id, step=lambda: reach("environment_remove")
                ):
                    if done.kept:
                        log.info("task %s: changed meanwhile and left: %s", task_id, ", ".join(done.kept))
            except OSError as error:
                log.warning("files of task %s stay in %s for now: %s", task_id, place, error)
