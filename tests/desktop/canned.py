"""States as a daemon would tell them, made up: for looking at windows and for tests of what they show."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import msgspec

from daemon_core.control.turn_views import TurnView
from daemon_core.control.views import (
    CommitView,
    Condition,
    DaemonStatus,
    DelegationView,
    FileChangeView,
    JobView,
    PlanEntryView,
    RequestView,
    ResidentView,
    RuntimeView,
    RunView,
    SpendView,
    TaskChanges,
    TaskRow,
    TaskView,
    TranscriptLine,
    UpdateResult,
    UpdateVersion,
    UpdateView,
)
from daemon_core.protocol.wire import Usage
from desktop.models.state import LinkPhase

PROMPT = "After signing in, people land on the start page instead of where they wanted to go. Fix it."
DIFF = """--- a/src/auth/redirect.ts
+++ b/src/auth/redirect.ts
@@ -12,9 +12,14 @@ export function afterSignIn(request: Request): Response {
   const session = request.session;
   if (!session.user) {
-    return redirect("/sign-in");
+    const next = encodeURIComponent(request.path);
+    return redirect(`/sign-in?next=${next}`);
   }
-  return redirect("/");
+  const wanted = safePath(request.query.get("next"));
+  return redirect(wanted ?? "/");
 }
@@ -40,3 +45,8 @@ export function signOut(request: Request): Response {
   request.session.clear();
   return redirect("/");
 }
+
+/** Only paths of this site: an address elsewhere would be an open redirect. */
+function safePath(path: string | null): string | null {
+\treturn path?.startsWith("/") && !path.startsWith("//") ? path : null;
+}
"""


def ago(seconds: float) -> str:
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def row(ident: str, title: str, status: str = "running", **more: Any) -> TaskRow:
    given = {"runtime": "claude", "created_at": ago(4000), "server": "hub", **more}
    return TaskRow(id=ident, title=title, status=status, **given)


def asking() -> TaskRow:
    return row(
        "a1", "Fix login redirect", needs_input=True, directory="/home/me/shop-web",
        started_at=ago(184), last_action="Bash",
    )  # fmt: skip


def busy_rows() -> list[TaskRow]:
    return [
        asking(),
        row("b1", "Upgrade to Postgres 17", runtime="codex", directory="/home/me/api", started_at=ago(761),
            last_action="Bash", tool_calls=23, tokens=184_200),
        row("b2", "Weekly dependency report", started_at=ago(32), last_action="Read", tool_calls=2),
        row("b3", "Find out why the nightly import of the product catalogue takes four hours since Tuesday",
            runtime="opencode", directory="/home/me/import", started_at=ago(2201), last_action="Grep",
            tool_calls=61, tokens=1_240_000,
            notice=Condition(code="silent", next_try_at=ago(-240), action="extend")),
        row("w1", "Translate the manual", "queued", waiting=Condition(code="waiting_slot")),
        row("w2", "Tidy up the tests", "parked", parked_until=ago(-5000),
            waiting=Condition(code="usage_limit", params={"provider": "claude"})),
        row("e1", "Rename Customer to Account", "completed", directory="/home/me/api", started_at=ago(1900),
            ended_at=ago(1100), tokens=412_000, cost=1.84, cost_how="stated", changed_files=3),
        row("e2", "Flaky test hunt", "failed", failure_reason="timeout", directory="/home/me/shop-web",
            started_at=ago(9000), ended_at=ago(4000), tokens=96_000, cost_how="unknown"),
        row("e3", "Try the new linter", "cancelled", ended_at=ago(90_000)),
    ]  # fmt: skip


def runtimes() -> dict[str, RuntimeView]:
    found = [
        RuntimeView(id="r1", provider="claude", name="Claude Code", version="2.1.197", connection="hub",
                    path="/usr/bin/claude", busy=3),
        RuntimeView(id="r2", provider="codex", name="Codex", version="0.61.0", connection="hub",
                    path="/usr/bin/codex", busy=1),
        RuntimeView(id="r3", provider="gemini", name="Gemini CLI", version="0.9.1", connection="hub",
                    status="off", reason="switched_off"),
        RuntimeView(id="r4", provider="qwen", name="Qwen Code", status="unusable", reason="version_too_old",
                    version="0.0.9", reason_params={"version": "0.0.9", "min_version": "0.1.0"}),
        RuntimeView(id="r5", provider="claude", name="Claude Code", version="2.1.197", workspace="Shop",
                    connection="agents.example.org", status="offline", reason="unreachable"),
    ]  # fmt: skip
    return {each.id: each for each in found}


def connected(*tasks: TaskRow, conditions: tuple[Condition, ...] = (), **more: Any) -> dict[str, Any]:
    """What ``Link.tell`` is given for a daemon that runs."""
    return {
        "link": LinkPhase.CONNECTED,
        "status": DaemonStatus(
            status="running", version="1.0.0", started_at=ago(90_000), slots=4, conditions=list(conditions)
        ),
        "tasks": {each.id: each for each in tasks},
        "runtimes": runtimes(),
        **more,
    }


def permission() -> RequestView:
    return RequestView(
        id="q1", tool="Bash", input={"command": "rm -rf build && npm run build -- --mode production"}
    )


def question() -> RequestView:
    return RequestView(id="q2", kind="question", title="Which database should the tests use?",
                       options=["SQLite", "Postgres in a container"])  # fmt: skip


def plan() -> list[PlanEntryView]:
    return [
        PlanEntryView(text="Find where the wanted page is lost", status="completed"),
        PlanEntryView(text="Hand it on as `next`, and refuse addresses of other sites", status="in_progress"),
        PlanEntryView(text="Test both ways of signing in"),
    ]


def asking_view(*requests: RequestView) -> TaskView:
    base = asking()
    return TaskView(
        id=base.id, title=base.title, status="running", runtime="claude", model="opus",
        created_at=base.created_at, started_at=base.started_at, directory=base.directory,
        work_dir=base.directory, prompt=PROMPT, needs_input=bool(requests), requests=list(requests),
        messages=40, cost=0.87, cost_how="priced", conversation_id="c1", children=children(),
        session_id="0a4be1c0-51f2-4c14-9d52-7a2f3f1e9b11", server="hub",
        usage=[Usage(provider="claude", model="opus", input_tokens=41_200, output_tokens=9_800,
                     cache_read_tokens=310_000)],
        runs=[RunView(id="r", status="running", pid=41233, started_at=base.started_at)], plan=plan(),
    )  # fmt: skip


def transcript(*, running: bool = True) -> list[TranscriptLine]:
    at = [ago(170 - 4 * step) for step in range(40)]
    said = [
        ("thinking", "The redirect is probably lost in the middleware; look how the session is checked."),
        ("text", "I'll look at how signing in decides where to go."),
        ("use", "Grep", {"pattern": "redirect\\(", "path": "src"}),
        ("result", "Grep", "src/auth/redirect.ts:15\nsrc/auth/redirect.ts:17\nsrc/auth/redirect.ts:42"),
        ("use", "Read", {"file_path": "/home/me/shop-web/src/auth/redirect.ts"}),
        ("result", "Read", "export function afterSignIn(request: Request): Response {\n  …"),
        ("use", "Read", {"file_path": "/home/me/shop-web/src/auth/session.ts"}),
        ("result", "Read", "export class Session {"),
        ("text", "The cause: `afterSignIn` **always** answers with `/`, whatever one asked for.\n\n"
                 "## What I will do\n\n"
                 "1. Hand the path on as `next`\n2. Take it back after signing in\n"
                 "3. Refuse addresses of other sites\n\n"
                 "```ts\nconst wanted = safePath(request.query.get(\"next\"));\n"
                 "return redirect(wanted ?? \"/\");\n```\n\n"
                 "See the [notes on open redirects](https://example.org/redirects) for why."),
        ("use", "Edit", {"file_path": "/home/me/shop-web/src/auth/redirect.ts", "old_string": "a"}),
        ("result", "Edit", "Updated."),
        ("error", "The tool Bash failed: npm test ended with code 1"),
        ("text", "One test expected the old behaviour; I change it."),
        ("use", "Bash", {"command": "npm test -- --watch=false src/auth"}),
    ]  # fmt: skip
    if not running:
        said += [("result", "Bash", "42 passed\n"), ("text", "Done: people land where they wanted to go.")]
    lines = []
    for seq, (kind, *rest) in enumerate(said, 1):
        match kind:
            case "use":
                tool, given = rest
                lines.append(
                    TranscriptLine(seq=seq, type="tool_use", tool=str(tool), input=given, at=at[seq])
                )
            case "result":
                lines.append(
                    TranscriptLine(
                        seq=seq, type="tool_result", tool=str(rest[0]), output=str(rest[1]), at=at[seq + 1]
                    )
                )
            case _:
                lines.append(TranscriptLine(seq=seq, type=str(kind), content=str(rest[0]), at=at[seq]))
    return lines


def changes() -> TaskChanges:
    files = [
        FileChangeView(path="src/auth/redirect.ts", status="modified", added=12, deleted=2, diff=DIFF),
        FileChangeView(path="src/auth/redirect.test.ts", status="modified", added=31, deleted=4, diff=DIFF),
        FileChangeView(path="docs/sign-in.md", status="added", added=18, deleted=0, diff=""),
        FileChangeView(path="src/legacy/after-login.ts", status="deleted", added=0, deleted=88),
        FileChangeView(path="public/logo.png", status="modified", binary=True),
    ]
    return TaskChanges(
        id="a1", live=True, kind="git", files=files, files_total=5, added=61, deleted=94,
        commits=[CommitView(id="3f2a91c07be4", subject="Keep where people wanted to go")],
    )  # fmt: skip


def turns() -> list[TurnView]:
    return [
        TurnView(id="a0", status="completed", prompt="How does signing in decide where to go afterwards?",
                 created_at=ago(9000), started_at=ago(9000), ended_at=ago(8800), cost=0.21,
                 cost_how="stated"),
        TurnView(id="a00", status="failed", failure_reason="timeout", prompt="Fix it, then",
                 created_at=ago(7000), started_at=ago(7000), ended_at=ago(6000), cost_how="unknown"),
        TurnView(id="a1", status="running", prompt=PROMPT, created_at=ago(200), started_at=ago(184)),
    ]  # fmt: skip


def children() -> list[DelegationView]:
    return [
        DelegationView(id="d1", title="Write a test for open redirects", status="running", runtime="codex",
                       task_id="d1", created_at=ago(90), started_at=ago(88)),
    ]  # fmt: skip


def spend_condition() -> Condition:
    return Condition(code="spend_limit", params={"spent": 10.42, "limit": 10.0}, since=ago(400),
                     next_try_at=ago(-9000), action="continue_today")  # fmt: skip


def spent(status: DaemonStatus) -> DaemonStatus:
    spend = SpendView(day="2026-11-21", spent=10.42, limit=10.0, warn_at=8.0, held=True, resets_at=ago(-9000))
    return msgspec.structs.replace(status, spend=spend)


def jobs() -> dict[str, JobView]:
    found = [
        JobView(id="j1" * 16, status="running", name="Deploy to staging", command="./deploy.sh staging",
                directory="/home/me/shop-web", task_id="a1", created_at=ago(300), started_at=ago(300),
                stalled=True, stalled_at=ago(50), time_limit=3600.0, output_bytes=900),
        JobView(id="j2" * 16, status="running", command="npm run build -- --watch", created_at=ago(4100),
                directory="/home/me/shop-web", started_at=ago(4100), output_bytes=90_000),
        JobView(id="j3" * 16, status="done", name="Full test suite", command="npm test", exit_code=0,
                directory="/home/me/shop-web", created_at=ago(9000), started_at=ago(9000),
                ended_at=ago(8100)),
        JobView(id="j4" * 16, status="failed", command="cargo bench --bench parse", exit_code=101,
                directory="/home/me/parser", created_at=ago(20_000), started_at=ago(20_000),
                ended_at=ago(19_000)),
        JobView(id="j5" * 16, status="killed", command="python -m http.server 8000", signal=15,
                directory="/home/me", created_at=ago(90_000), started_at=ago(90_000), ended_at=ago(86_000)),
    ]  # fmt: skip
    return {each.id: each for each in found}


def residents() -> dict[str, ResidentView]:
    found = [
        ResidentView(id="mail", name="Mail watcher", version="1.2", state="running", enabled=True, pid=4711,
                     description="Reads the support mailbox and files an issue for each new question.",
                     file="/home/me/.config/ostler/residents/mail.yaml", started_at=ago(7300), restarts=1),
        ResidentView(id="notes", name="Notes index", state="gave_up", reason="exited",
                     reason_params={"exit_code": 2}, file="/home/me/.config/ostler/residents/notes.yaml"),
        ResidentView(id="cron", name="cron", state="invalid", reason="resident_invalid",
                     file="/home/me/.config/ostler/residents/cron.yaml",
                     reason_params={"file": "/home/me/.config/ostler/residents/cron.yaml", "line": 7,
                                    "what": "`restart` must be one of: always, on-failure, never.",
                                    "hint": "Did you mean `on-failure`?"}),
    ]  # fmt: skip
    return {each.id: each for each in found}


NOTES = {
    "en": ["Tasks can be handed from one agent to another.", "The window opens in half the time.",
           "A day can have a limit of spending; what runs goes on, and you are told before it is reached."],
    "de": ["Aufgaben lassen sich von Agent zu Agent weitergeben."],
}  # fmt: skip


def update(stage: str = "idle", version: str = "1.4.0", **more: Any) -> UpdateView:
    """How a daemon of 1.3.0 stands with its updates."""
    given = {
        "stage": stage, "since": ago(5), "current": "1.3.0", "previous": "1.2.9", "checked_at": ago(7200),
        "next_check_at": ago(-20_000), "version": None, "ready": stage in ("staged", "waiting"),
        "history": [
            UpdateResult(version="1.3.0", from_version="1.2.9", result="committed", at=ago(900_000)),
            UpdateResult(version="1.2.10", from_version="1.2.9", result="rolled_back", at=ago(2_000_000),
                         reason=Condition(code="crashed")),
            UpdateResult(version="1.2.9", from_version="1.2.8", result="failed", at=ago(2_500_000),
                         asked_by="user", reason=Condition(code="disk_full", params={"path": "/home"})),
            UpdateResult(version="1.2.8", from_version="1.2.7", result="committed", at=ago(4_000_000)),
        ],
        **more,
    }  # fmt: skip
    if stage != "idle":
        given["version"] = UpdateVersion(version=version, notes=NOTES, download_bytes=2_100_000)
    return UpdateView(**given)


JOB_OUTPUT = (
    "$ ./deploy.sh staging\r\n\x1b[1mBuilding\x1b[0m shop-web 4.2.0\r\n"
    "progress  10 %\rprogress  60 %\rprogress 100 %\r\n"
    "\x1b[32m✔\x1b[0m 214 modules, \x1b[2m12.4 s\x1b[0m\r\n"
    "\x1b[33mwarning\x1b[0m: 2 packages are out of date\r\n"
    "\x1b[31merror\x1b[0m: the certificate of staging-2 ends in 3 days\r\n"
    "\r\nThe database has 3 migrations that were not applied.\r\nApply them now? [y/N] "
).encode()


def cpu(step: int, pace: int) -> float:
    """Per cent of a processor as a program that builds and waits uses them."""
    wave = math.sin(step * pace / 9) + 0.6 * math.sin(step * (pace + 1.7) / 4 + pace)
    return max(2.0, 42 + 34 * wave)
