"""``ostler task``: starting, waiting, watching, ending."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemon_core.control.server import ControlServer
from daemon_core.control.views import TaskAdd, TaskView, TranscriptLine
from tests.cli.conftest import ROOT, Ostler, end, interrupt
from tests.control.memory_backend import MemoryBackend


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.01)


def only(backend: MemoryBackend) -> TaskView:
    (task,) = backend.tasks.values()
    return task


async def play(backend: MemoryBackend, work: Callable[[str], Awaitable[None]]) -> None:
    """Wait for the one task, then do what an agent would."""
    await until(lambda: bool(backend.tasks))
    await work(only(backend).id)


async def test_add_prints_the_id_alone(ostler: Ostler, backend: MemoryBackend, tmp_path: Path) -> None:
    done = await ostler(
        "task", "add", "do it", "--runtime", "shell", "--title", "T", "--dir", os.path.relpath(tmp_path, ROOT)
    )
    task = only(backend)
    assert (done.code, done.out) == (0, f"{task.id}\n")
    assert f"ostler task logs -f {task.id}" in done.err
    assert (task.prompt, task.runtime, task.title) == ("do it", "shell", "T")
    assert task.directory == str(tmp_path)
    done = await ostler("task", "add", "x", "--json")
    assert done.document["status"] == "running"
    assert done.err == ""


async def test_a_prompt_of_a_megabyte_comes_from_standard_input(
    ostler: Ostler, backend: MemoryBackend
) -> None:
    prompt = "é\n" * 350_000
    assert (await ostler("task", "add", "-", stdin=prompt.encode())).code == 0
    assert only(backend).prompt == prompt
    done = await ostler("task", "add", "-", stdin=b"\xff\xfe")
    assert (done.code, "not UTF-8" in done.err) == (2, True)
    done = await ostler("task", "add", "-", stdin=b"x" * (4 * 2**20 + 1))
    assert (done.code, "longer than 4 MiB" in done.err) == (2, True)
    assert len(backend.tasks) == 1


async def test_wait_shows_the_transcript_and_succeeds_with_the_task(
    ostler: Ostler, backend: MemoryBackend
) -> None:
    async def work(ident: str) -> None:
        await backend.say(
            ident,
            TranscriptLine(seq=1, type="text", content="Let me look."),
            TranscriptLine(seq=2, type="thinking", content="hm\nhm"),
            TranscriptLine(seq=3, type="tool_use", tool="Bash", input={"command": "npm test", "timeout": 3}),
            TranscriptLine(seq=4, type="tool_result", tool="Bash", output="ok 1\nok 2\n\nok 3\n"),
            TranscriptLine(seq=5, type="error", content="rate limited\x1b]0;evil\x07"),
        )
        await backend.finish(ident)

    done, _ = await asyncio.gather(ostler("task", "add", "x", "--wait"), play(backend, work))
    assert done.code == 0
    assert done.out == (
        "Let me look.\n  thinking: hm hm\n> Bash  npm test\n  ok 1 (+2 more)\nerror: rate limited\n"
    )
    assert done.err.startswith("Done")


async def test_shell_output_is_passed_on_as_it_came(ostler: Ostler, backend: MemoryBackend) -> None:
    async def work(ident: str) -> None:
        await backend.text(ident, "a\n  b")
        await backend.text(ident, "c\n\x1b[31mred\x1b[0m\x1b[2J no end")
        await backend.finish(ident)

    done, _ = await asyncio.gather(
        ostler("task", "add", "x", "--runtime", "shell", "--wait"), play(backend, work)
    )
    assert done.out == "a\n  bc\nred no end\n"  # colours only for a terminal


async def test_wait_fails_with_the_task_and_json_is_the_final_document(
    ostler: Ostler, backend: MemoryBackend
) -> None:
    async def work(ident: str) -> None:
        await backend.text(ident, "one")
        await backend.finish(ident, "failed", "idle_watchdog", "no output for 30 min")

    done, _ = await asyncio.gather(ostler("task", "add", "x", "--wait", "--json"), play(backend, work))
    assert done.code == 1
    assert done.document["failure_reason"] == "idle_watchdog"
    assert done.err == ""
    ident = only(backend).id
    done = await ostler("task", "logs", ident[:8], "-f")
    assert (done.code, done.out) == (0, "one\n")
    assert done.err == "Failed: the agent was silent for too long (no output for 30 min).\n"


async def test_a_timeout_leaves_the_task_running(ostler: Ostler, backend: MemoryBackend) -> None:
    for arguments in (("--timeout", "0.3"), ("--timeout", "300ms", "--json")):
        done = await ostler("task", "add", "x", "--wait", *arguments)
        assert done.code == 124
        if "--json" in arguments:
            assert done.error["code"] == "wait_timeout"
        else:
            assert "The time is up; the task goes on" in done.err
    assert {task.status for task in backend.tasks.values()} == {"running"}


async def test_an_agent_that_talks_all_the_time_times_out_too(ostler: Ostler, backend: MemoryBackend) -> None:
    async def work(ident: str) -> None:
        for _ in range(200):
            await backend.text(ident, "x")
            await asyncio.sleep(0.01)

    done, _ = await asyncio.gather(
        ostler("task", "add", "x", "--wait", "--timeout", "1"), play(backend, work)
    )
    assert done.code == 124


async def test_ctrl_c_leaves_the_task_running_and_says_so(ostler: Ostler, backend: MemoryBackend) -> None:
    process = await ostler.begin("task", "add", "x", "--wait")
    await until(lambda: bool(backend.tasks))
    await backend.text(only(backend).id, "one")
    assert process.stdout is not None
    await process.stdout.readline()
    done = await interrupt(process)
    assert done.code == 130
    assert f"The task {only(backend).id} goes on." in done.err
    assert only(backend).status == "running"


async def test_following_goes_on_over_a_restart_of_the_daemon(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x", runtime="claude"))
    await backend.text(made.id, "one")
    process = await ostler.begin("task", "logs", "-f", made.id, "--json")
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["content"] == "one"
    backend.stopped.set()
    await until(lambda: not ostler.directories.control_socket.exists())
    after = MemoryBackend()
    after.tasks, after.lines = backend.tasks, backend.lines
    await after.text(made.id, "two")
    await after.finish(made.id)
    server = ControlServer(after, ostler.directories.control_socket)
    await server.start()
    done = await end(process)
    await server.close()
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line)["content"] for line in done.out.splitlines()] == ["two"]


async def test_inside_a_run_a_restarting_daemon_is_waited_for(ostler: Ostler) -> None:
    ostler.directories.ensure()
    ostler.environ = {"OSTLER_TASK_ID": "t"}
    process = await ostler.begin("task", "list", "--json")
    await asyncio.sleep(0.5)
    assert process.returncode is None
    server = ControlServer(MemoryBackend(), ostler.directories.control_socket)
    await server.start()
    done = await end(process)
    await server.close()
    assert (done.code, done.document) == (0, [])


async def test_waiting_goes_on_over_a_restart_to_the_result(ostler: Ostler, backend: MemoryBackend) -> None:
    process = await ostler.begin("task", "add", "x", "--wait")
    await until(lambda: bool(backend.tasks))
    ident = only(backend).id
    await backend.text(ident, "one")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    backend.stopped.set()
    await until(lambda: not ostler.directories.control_socket.exists())
    after = MemoryBackend()
    after.tasks, after.lines = backend.tasks, backend.lines
    server = ControlServer(after, ostler.directories.control_socket)
    await server.start()
    await after.text(ident, "two")
    await after.finish(ident)
    done = await end(process)
    await server.close()
    assert (done.code, done.out) == (0, "two\n")


async def test_an_empty_list_says_what_to_do(ostler: Ostler, backend: MemoryBackend) -> None:
    done = await ostler("task", "list")
    assert (done.code, done.out) == (0, "")
    assert "Start one with `ostler task add PROMPT`." in done.err
    assert (await ostler("task", "list", "--json")).document == []


async def test_a_list_is_aligned_and_its_ids_are_enough(ostler: Ostler, backend: MemoryBackend) -> None:
    for prompt in ("first", "second " * 30):
        await backend.add_task(TaskAdd(prompt=prompt, runtime="shell", title=prompt))
    lines = (await ostler("task", "list")).out.splitlines()
    assert lines[0].split() == ["ID", "STATE", "RUNTIME", "CREATED", "TOOK", "TITLE"]
    column = lines[0].index("RUNTIME")
    assert all(line[column:].startswith("shell") for line in lines[1:])
    assert all(len(line) <= 100 for line in lines)
    for line in lines[1:]:
        assert (await ostler("task", "show", line.split()[0])).code == 0
    rows = (await ostler("task", "list", "--json")).document
    assert [row["title"][:6] for row in rows] == ["second", "first"]


async def test_show_has_the_documented_fields(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x"))
    document = (await ostler("task", "show", made.id, "--json")).document
    names = "id title status runtime agent model created_at started_at ended_at work_dir session_id result"
    assert {*names.split(), "failure_reason", "error", "usage", "runs", "server", "needs_input"} <= set(
        document
    )
    assert f"Task     {made.id}" in (await ostler("task", "show", made.id)).out


async def test_reply_cancel_retry_delete(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x", runtime="shell"))
    assert (await ostler("task", "cancel", made.id)).out == "x: cancelled.\n"
    done = await ostler("task", "cancel", made.id)
    assert (done.code, "has ended already" in done.err) == (6, True)
    replied = (await ostler("task", "reply", made.id, "more", "--json")).document
    assert (replied["prompt"], replied["conversation_id"]) == ("more", made.conversation_id)
    again = (await ostler("task", "retry", made.id, "--json")).document
    assert (again["prompt"], again["id"] != made.id) == ("x", True)
    assert (await ostler("task", "delete", made.id)).out == "Deleted the conversation of 1 task.\n"
    assert made.id not in backend.tasks


async def test_logs_as_json_are_one_object_a_line(ostler: Ostler, backend: MemoryBackend) -> None:
    made = await backend.add_task(TaskAdd(prompt="x"))
    await backend.text(made.id, "one\ntwo")
    await backend.say(made.id, TranscriptLine(seq=2, type="tool_use", tool="Bash", input={"command": "ls"}))
    done = await ostler("task", "logs", made.id, "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[0] == {"seq": 1, "type": "text", "content": "one\ntwo", "at": "2026-05-04T10:00:00Z"}
    assert lines[1] == {"seq": 2, "type": "tool_use", "tool": "Bash", "input": {"command": "ls"}}
    done = await ostler("task", "logs", made.id, "--json", "--after", "1")
    assert len(done.out.splitlines()) == 1


async def test_agents_by_the_command_line(ostler: Ostler, backend: MemoryBackend, tmp_path: Path) -> None:
    brief = tmp_path / "brief.md"
    brief.write_text("Be kind.\n")
    done = await ostler(
        "agent",
        "add",
        "bob",
        "--runtime",
        "claude",
        "--instructions",
        f"@{brief}",
        "--env",
        "A=b=c",
        "--arg",
        "-v",
    )
    assert done.code == 0, done.err
    assert backend.named["bob"].instructions == "Be kind.\n"
    assert backend.named["bob"].env_names == ["A"]
    assert (await ostler("agent", "edit", "bob", "--model", "opus")).code == 0
    assert (await ostler("agent", "list", "--json")).document[0]["model"] == "opus"
    assert "Be kind." in (await ostler("agent", "show", "bob")).out
    assert (await ostler("agent", "add", "bob", "--runtime", "claude")).code == 6
    assert (await ostler("agent", "add", "x", "--runtime", "claude", "--env", "A")).code == 2
    assert (await ostler("agent", "add", "x", "--runtime", "claude", "--mcp-config", str(brief))).code == 2
    assert (await ostler("agent", "edit", "bob", "--skill", str(tmp_path / "none"))).code == 2
    assert (await ostler("agent", "edit", "bob")).code == 2
    assert (await ostler("agent", "remove", "bob")).code == 0
    assert (await ostler("agent", "list")).out == ""


@pytest.mark.usefixtures("backend")
async def test_runtimes_are_listed_with_the_reason(ostler: Ostler) -> None:
    done = await ostler("runtimes")
    assert "shell" in done.out
    assert done.err == (
        "claude cannot be used: version 1.0.3 is too old, 2.0.0 or newer is needed."
        " Update it, then `ostler runtimes --refresh`.\n"
    )
    rows = (await ostler("runtimes", "--json", "--refresh")).document
    names = "id provider version path status connection workspace busy reason"
    assert all(set(names.split()) <= set(row) for row in rows)


def test_a_skill_is_read_from_its_directory(tmp_path: Path) -> None:
    from daemon_core.cli.commands.agent import _skill

    folder = tmp_path / "deploy"
    (folder / "ref").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("no")
    (folder / "SKILL.md").write_text("---\nname: deploy\ndescription: 'How to'\n---\nbody")
    (folder / "ref" / "a.md").write_text("x")
    skill = _skill(folder)
    assert (skill.name, skill.description, skill.files) == ("deploy", "How to", {"ref/a.md": "x"})
    (folder / "SKILL.md").write_text("body")
    assert _skill(folder).description == ""
