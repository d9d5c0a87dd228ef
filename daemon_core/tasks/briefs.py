"""The brief: what an agent is told of where it is, who it is and how things are done here.

It goes to the agent by the way that its provider has (``workdirs.environments``). Which sections a kind of
task gets is the protocol's; the words are our own. Two forms:

- **the hub's** (the user's own tasks on this machine): short;
- **a server's**: with the commands for its issues, comments and projects.

What others have written (profiles, descriptions, names) is quoted or cut to plain text. Nothing secret is in
a
brief: tokens are in the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from daemon_core.protocol.wire import Agent, Task
from daemon_core.tasks import later
from daemon_core.tasks.plain import cut, plain_id, plain_name, quoted
from daemon_core.tasks.prompts import is_leader, kind_of
from daemon_core.workdirs.skills import PlacedSkill

TEXT_LIMIT_CHARS: Final = 8 * 1024
"""Of a profile or a description."""
LIST_LIMIT: Final = 100

HUB_COMMANDS: Final = frozenset({"task", "repo", "job", "delegate"})
"""Groups of ``ostler`` commands that a run of the hub's can use; each has its lines in ``_HUB_LINES``."""

_HUB_LINES: Final = {
    "task": (
        "- `ostler task list --json`, `ostler task show ID --json`, `ostler task logs ID`: this and other"
        " tasks",
    ),
    "job": (
        "- `ostler job run --name NAME -- COMMAND...`: a command that goes on when your turn has ended; you"
        " are called again when it ends (`--no-wake`: not, as for a server that stays up)",
        "- `ostler job list --json`, `ostler job show ID --json`, `ostler job output ID`",
        "- `ostler job input ID TEXT`, `ostler job wait ID`, `ostler job kill ID`",
    ),
    "delegate": (
        "- `ostler task delegate PROMPT [--agent NAME | --runtime P] [--wait]`: let another agent do a part;"
        " it knows nothing but the prompt, and without `--wait` you are told when it is done",
        "- `ostler task delegate list|result ID|cancel ID`",
    ),
    "repo": ("- `ostler repo checkout URL [--ref REF]`: a repository as a directory below this one",),
}


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the conversation that goes on now."""

    id: str
    name: str
    command: str
    since: str
    output_path: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the brief tells of this machine."""

    work_dir: str
    user_owned: bool
    hub: bool
    context_folder: str = ""
    """Where the context files are."""
    context_files: tuple[str, ...] = ()
    commands: frozenset[str] = HUB_COMMANDS
    jobs: tuple[JobLine, ...] = ()


def brief_of(task: Task, where: Surroundings, skills: Sequence[PlacedSkill] = ()) -> str:
    """The brief of a task."""
    kind = kind_of(task)
    sections = [
        "# Your task",
        _place(where),
        _long_work(where),
        _identity(task),
        _person(task),
        _initiator(task),
        _workspace(task),
        _apps(task),
        _hub_commands(where) if where.hub else _commands(kind),
        _repositories(task, where) if where.hub else "",
    ]
    if not where.hub:
        if kind in ("comment", "direct"):
            sections += [_comments(), _project(task, where)]
        if kind != "quick_create":
            sections.append(_repositories(task, where))
        if kind in ("comment", "direct"):
            sections.append(_metadata())
        if kind != "quick_create":
            sections.append(_statuses(task))
        if kind == "direct":
            sections.append(_precedence())
        sections.append(_workflow(task, kind))
        if kind in ("comment", "direct"):
            sections.append(_sub_issues())
    if kind != "quick_create":
        sections.append(_skills(skills, later.without_skills(task)))
    if not where.hub:
        if kind in ("comment", "direct"):
            sections += [_mentions(), _attachments()]
        sections.append(_command_line_only())
        sections.append(_output(kind))
    return "\n\n".join(section for section in sections if section) + "\n"


# --- sections of every task --------------------------------------------------------------------


def _place(where: Surroundings) -> str:
    if where.user_owned:
        told = (
            f"You work in `{where.work_dir}`, a directory of the user. What was there before you"
            " belongs to the user: change what the task is about, and leave the rest as it is."
        )
    else:
        told = (
            f"You work in `{where.work_dir}`, a directory made for this conversation"
            " and kept for its next turn."
        )
    if where.context_files:
        files = ", ".join(f"`{where.context_folder}/{name}`" for name in where.context_files)
        told += f" More about the task: {files}."
    return told


def _long_work(where: Surroundings) -> str:
    lines = [
        "## Work that takes long",
        "When your turn ends, every process that you have started is ended. So do not end it while something"
        " you"
        " need is still running: wait for it in the foreground, with a time limit that is long enough.",
    ]
    if "job" in where.commands:
        lines.append(
            "What is to go on after your turn, or takes longer than a few minutes, you start with `ostler"
            " job run -- COMMAND`: you are called again when it is done, and need not wait for it."
        )
    if where.jobs:
        lines.append("Running now for this conversation:")
        lines += [
            f"- {plain_id(job.id)}: {plain_name(job.name or job.command)}, since {plain_id(job.since)},"
            f" output in"
            f" `{job.output_path}`"
            for job in where.jobs[:LIST_LIMIT]
        ]
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _identity(task: Task) -> str:
    agent = task.agent or Agent()
    instructions = agent.instructions.strip()
    name = plain_name(agent.name)
    if not name and not instructions:
        return ""
    told = f"You are the agent {name}" if name else "You are an agent"
    agent_id = plain_id(agent.id or task.agent_id)
    told += f" (id {agent_id})." if agent_id else "."
    return "## Who you are\n\n" + told + (f"\n\n{instructions}" if instructions else "")


def _person(task: Task) -> str:
    profile = (task.requesting_user_profile_description or "").strip()
    if not profile:
        return ""
    name = plain_name(task.requesting_user_name) or "The user"
    return f"## Who asks\n\n{name} says of themself:\n\n{quoted(cut(profile, TEXT_LIMIT_CHARS))}"


def _initiator(task: Task) -> str:
    name = plain_name(task.initiator_name)
    if not name:
        return ""
    kind = "another agent" if task.initiator_type == "agent" else "a member"
    facts = (("id", plain_id(task.initiator_id)), ("mail", plain_name(task.initiator_email)))
    details = [kind, *(f"{what} {value}" for what, value in facts if value)]
    return f"## Who started this\n\n{name} ({', '.join(details)})."


def _workspace(task: Task) -> str:
    context = (task.workspace_context or "").strip()
    return f"## About this workspace\n\n{context}" if context else ""


def _apps(task: Task) -> str:
    lines = []
    for app in (task.connected_apps or [])[:LIST_LIMIT]:
        told = {key: plain_name(value) for key, value in app.items() if isinstance(value, str)}
        name = told.get("toolkit_name") or told.get("toolkit_slug") or told.get("provider") or ""
        server = told.get("server_name", "")
        if name:
            lines.append(f"- {name}" + (f": the tools of the MCP server {server}" if server else ""))
    return "## Connected apps\n\n" + "\n".join(lines) if lines else ""


def _skills(skills: Sequence[PlacedSkill], without: str) -> str:
    if not skills:
        return f"## Skills\n\n{without}" if without else ""
    lines = []
    for skill in skills[:LIST_LIMIT]:
        about = plain_name(skill.description, 300)
        lines.append(
            f"- {plain_name(skill.name)}{f': {about}' if about else ''} (`{skill.directory}/SKILL.md`)"
        )
    told = "You have these. Read a skill's file before you do what it is about.\n\n" + "\n".join(lines)
    return f"## Skills\n\n{told}" + (f"\n\n{without}" if without else "")


_SAME_AS_TOOLS: Final = "If you have tools of an MCP server called `ostler`, they do the same."


# --- commands ----------------------------------------------------------------------------------


def _hub_commands(where: Surroundings) -> str:
    lines = [line for group, found in _HUB_LINES.items() if group in where.commands for line in found]
    return "\n\n".join(["## The `ostler` command", "\n".join(lines), _SAME_AS_TOOLS]) if lines else ""


def _commands(kind: str) -> str:
    if kind == "quick_create":
        lines = [
            "- `ostler issue create --title TEXT --description-file FILE [--priority P] [--assignee-type"
            " member|agent|squad --assignee-id ID] [--project ID] [--parent ID]`",
            "- `ostler workspace members --json`, `ostler workspace agents --json`, `ostler workspace squads"
            " --json`",
            "- `ostler issue get ID --json`, `ostler issue search TEXT --json`",
        ]
    else:
        lines = [
            "- issues: `ostler issue get|list|search|children|create|update|status|assign`",
            "- comments: `ostler issue comment list|add|delete|resolve`",
            "- notes on an issue: `ostler issue metadata list|set|delete`",
            "- runs: `ostler issue runs|messages|cancel|rerun`",
            "- people and projects: `ostler workspace show|members|agents|squads`, `ostler project"
            " list|show|resources`",
            "- files: `ostler attachment download|upload`",
            "- chats: `ostler chat history|thread`",
            "- code: `ostler repo checkout URL [--ref REF]`",
            "- background commands: `ostler job run|list|show|output|input|wait|kill`",
            "- other agents of this machine: `ostler task delegate PROMPT [--agent NAME] [--wait]`, `ostler"
            " task delegate list|result|cancel`",
        ]
    return (
        "## The `ostler` command\n\nIt acts for this task at the server. Add `--json` for output to read by"
        f" program, `--help` for the options. {_SAME_AS_TOOLS}\n\n" + "\n".join(lines)
    )


def _command_line_only() -> str:
    return (
        "## Only by that command\n\n"
        "Everything about the server goes through `ostler`. Do not call its web interface or API by other"
        " means:"
        " your credential is good for nothing else, and pages need a sign-in that you do not have."
    )


# --- sections of a server's tasks --------------------------------------------------------------


def _comments() -> str:
    return (
        "## Writing comments\n\n"
        "Comments are Markdown. Write the text to a UTF-8 file, post it with `--content-file FILE`, and"
        " delete the"
        " file. Never put the text on the command line: the shell changes quotes, backticks and dollar signs."
    )


def _project(task: Task, where: Surroundings) -> str:
    if not task.project_id:
        return ""
    title = plain_name(task.project_title) or "a project"
    parts = [f"## The project\n\nThe issue is of the project {title} (id {plain_id(task.project_id)})."]
    if task.project_description:
        parts.append(quoted(cut(task.project_description, TEXT_LIMIT_CHARS)))
    resources = [
        f"- {plain_name(each.resource_type)}{f': {plain_name(each.label)}' if each.label else ''}"
        for each in (task.project_resources or [])[:LIST_LIMIT]
    ]
    if resources:
        place = f" (in full: `{where.context_folder}/project/resources.json`)" if where.context_folder else ""
        parts.append(f"Its resources{place}:\n\n" + "\n".join(resources))
    return "\n\n".join(parts)


def _repositories(task: Task, where: Surroundings) -> str:
    lines = []
    for repo in (task.repos or [])[:LIST_LIMIT]:
        ref = f", at {plain_name(repo.ref)}" if repo.ref else ""
        about = plain_name(repo.description, 300)
        lines.append(f"- {plain_name(repo.url, 400)}{ref}{f': {about}' if about else ''}")
    if not lines:
        return ""
    if where.hub:
        told = (
            "Checked out already: each in a directory of its own below this one, on a branch of this"
            " conversation."
            " Commit there what is done; do not clone it again."
        )
    else:
        told = (
            "Get the one you need with `ostler repo checkout URL`: a work tree below this directory, on a"
            " branch"
            " of this task. Do not clone by other means."
        )
    return f"## Repositories\n\n{told}\n\n" + "\n".join(lines)


def _metadata() -> str:
    return (
        "## Notes on the issue\n\n"
        "An issue has short notes that outlive a run (key and value): `ostler issue metadata list ID`. Read"
        " them"
        " first. Write one only for what the next run will look for: a link to a pull request, the address"
        " of a"
        " deployment, what it waits for. No secrets, no logs, nothing that a comment says already."
    )


def _statuses(task: Task) -> str:
    told = later.statuses(task)
    return f"## Statuses of issues\n\n{told}" if told else ""


def _precedence() -> str:
    return '## What counts more\n\nWhere "Who you are" and the workflow below disagree, "Who you are" counts.'


def _workflow(task: Task, kind: str) -> str:
    issue = plain_id(task.issue_id)
    match kind:
        case "chat":
            told = (
                "This is a conversation: answer what was said, ask if something is unclear, and look things"
                " up or"
                " change them where that is what is wanted."
            )
        case "quick_create":
            told = "Turn the request into one issue and do nothing else."
        case "autopilot":
            told = (
                "No person is waiting and no issue belongs to this run. Do what the instructions say, and"
                " end with"
                " a summary: it is kept as the result."
            )
        case "comment":
            told = (
                f"Read what was said on issue {issue}, do what the comment asks for, and answer in its"
                f" thread. The"
                " issue's status stays as it is unless you were asked to change it."
            )
        case _:
            told = (
                f"1. Read the notes (`ostler issue metadata list {issue}`) and the comments.\n"
                f"2. `ostler issue status {issue} in_progress`.\n"
                "3. Do the work.\n"
                "4. Post its result as one comment: what you did, what you found, where it is.\n"
                f"5. `ostler issue status {issue} in_review`. If you cannot go on without somebody, say in a"
                f" comment"
                f" what you need and from whom, and set `blocked` instead."
            )
            if is_leader(task):
                told += (
                    "\n\nYou lead the squad: if there is nothing for it to do, record that with"
                    f" `ostler squad activity {issue} no_action --reason TEXT` and end without a comment."
                )
    return f"## How to go about it\n\n{told}"


def _sub_issues() -> str:
    return (
        "## Sub-issues\n\n"
        "Split work off only if it can be done on its own: `ostler issue create --parent ID`. With the status"
        " `todo` its assignee begins at once; with `backlog` it waits until somebody changes that. `--stage"
        " N`"
        " orders them: a stage begins when the one before it is done."
    )


def _mentions() -> str:
    return (
        "## Mentions\n\n"
        "A mention is an act: one of an agent starts a run of it, one of a member notifies them. Write names"
        " as"
        " plain text, and mention only where the act is what you want."
    )


def _attachments() -> str:
    return (
        "## Attached files\n\n"
        "Files of issues and comments have ids: `ostler attachment download ID`. Links to them in texts"
        " cannot be"
        " opened directly."
    )


def _output(kind: str) -> str:
    match kind:
        case "chat":
            told = "Your last message is what the person reads."
        case "quick_create":
            told = "Your last message is the one line that the request asks for."
        case "autopilot":
            told = "Your last message is the result of the run; nothing else is shown."
        case _:
            told = (
                "People read the issue, not your messages here: what nobody finds in a comment has not been"
                " said."
                " One comment with the result is enough; no comments about what you are about to do."
            )
    return f"## What is read\n\n{told}"
