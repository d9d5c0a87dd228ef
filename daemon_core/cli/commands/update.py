"""``ostler update``: which version runs, which could, and what became of earlier updates."""

from __future__ import annotations

import time
from typing import Final

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command, LazyGroup, pass_session
from daemon_core.cli.session import Session
from daemon_core.cli.times import seconds
from daemon_core.cli.update_words import stage_words, update_hint, update_reason
from daemon_core.cli.words import EXIT_FAILED, EXIT_TIMEOUT, CliError
from daemon_core.control.update_views import WEEK_S, UpdateApply, UpdateLater
from daemon_core.control.views import Condition, UpdateView

CHECK_TIMEOUT_S: Final = 150.0
WAIT_S: Final = 600.0
_LOOK_S: Final = 0.5
_LINES: Final = 5
_OVER: Final = frozenset({"idle", "committed", "rolled_back", "failed"})

update = LazyGroup(
    "update",
    {
        "status": ("update:status", "Which version runs, and what is ready."),
        "check": ("update:check", "Look for a newer version now."),
        "apply": ("update:apply", "Put the newest version in place now; runs go on."),
        "rollback": ("update:rollback", "Go back to the version before."),
        "remind-later": ("update:remind_later", "Say nothing of it for a week."),
    },
    help="Newer versions of Ostler. They are looked for and put in place by themselves, too.",
)


@click.command(cls=Command)
@pass_session
def status(session: Session) -> None:
    """Which version runs, what is ready, and what became of earlier updates."""
    _tell(session, session.call(UpdateView, "GET", "/v1/update"))


@click.command(cls=Command)
@pass_session
def check(session: Session) -> None:
    """Look for a newer version now; what there is is fetched in the background."""
    _tell(session, session.call(UpdateView, "POST", "/v1/update/check", timeout_s=CHECK_TIMEOUT_S))


@click.command(cls=Command)
@click.option("--version", "version", metavar="V", default="", help="Only this version.")
@click.option("--wait", is_flag=True, help="Return when it runs, or does not.")
@pass_session
def apply(session: Session, version: str, wait: bool) -> int:
    """Fetch the newest version if need be, and restart the daemon into it. Runs go on."""
    wanted = UpdateApply(version=version)
    found = session.call(UpdateView, "POST", "/v1/update/apply", wanted, timeout_s=CHECK_TIMEOUT_S)
    return _finish(session, found, wait)


@click.command(cls=Command)
@click.option("--wait", is_flag=True, help="Return when it runs, or does not.")
@pass_session
def rollback(session: Session, wait: bool) -> int:
    """Go back to the version before. The present one is not taken again by itself."""
    return _finish(session, session.call(UpdateView, "POST", "/v1/update/rollback"), wait)


@click.command("remind-later", cls=Command)
@click.option("--for", "length", metavar="D", default="", help="How long: 2d, 12h. Else a week.")
@pass_session
def remind_later(session: Session, length: str) -> None:
    """Say nothing of the version that is ready, and do not put it in place by itself, for a week."""
    wanted = UpdateLater(seconds=seconds(length, "--for") if length else WEEK_S)
    found = session.call(UpdateView, "POST", "/v1/update/remind-later", wanted)
    if session.json:
        session.document(found)
        return
    version = found.version.version if found.version is not None else "The version"
    session.say(f"{version} is not mentioned again before {show.local_time(found.remind_at)}")


def _finish(session: Session, found: UpdateView, wait: bool) -> int:
    """Tell how it stands, or how it ended; gives the exit code."""
    target = found.version.version if found.version is not None else ""
    if wait:
        found = _wait(session, found)
    if session.json:
        session.document(found)
    elif wait:
        _tell(session, found)
    else:
        session.say(
            f"{target or 'The version before'} is on its way: {stage_words(found.stage)}",
            "`ostler update status` shows how it goes",
        )
    return EXIT_FAILED if wait and found.stage != "committed" else 0


def _wait(session: Session, found: UpdateView) -> UpdateView:
    """Until it is over. The daemon ends and comes back meanwhile, maybe as another version."""
    deadline = time.monotonic() + WAIT_S
    while found.stage not in _OVER:
        if time.monotonic() >= deadline:
            raise CliError(
                "timeout", f"After {show.span(WAIT_S)} it is: {stage_words(found.stage)}",
                "`ostler update status` shows how it goes on", EXIT_TIMEOUT,
            )  # fmt: skip
        time.sleep(_LOOK_S)
        left_s = deadline - time.monotonic()
        found = session.patiently(lambda: session.client.call(UpdateView, "GET", "/v1/update"), left_s)
        if found.problem is not None and found.stage in ("available", "staged"):
            break  # it is tried again later, which nobody waits for here
    return found


def _why(reason: Condition | None) -> str:
    return update_reason(reason.code, reason.params) if reason is not None else "nobody said why"


def _tell(session: Session, found: UpdateView) -> None:
    if session.json:
        session.document(found)
        return
    pairs = [("Version", found.current)]
    if not found.possible:
        pairs.append(("Updates", f"none here: {_why(found.why_not)}"))
    else:
        pairs += _present(found)
    click.echo(show.facts(pairs))
    if found.version is not None and found.stage not in _OVER:
        for line in found.version.notes.get("en", []):
            click.echo(f"  - {show.safe(line)}")
    if found.history:
        click.echo()
        click.echo(
            show.table(
                ("WHEN", "FROM", "TO", "WHAT BECAME OF IT"),
                (
                    (
                        show.local_time(each.at),
                        each.from_version,
                        each.version,
                        _became(each.result, each.reason),
                    )
                    for each in found.history[:_LINES]
                ),
            )
        )
    if not found.possible:
        hint = update_hint(found.why_not.code) if found.why_not is not None else ""
        if hint:
            session.note(hint)
    elif found.problem is not None:
        session.note(f"Last trouble: {_why(found.problem)}", update_hint(found.problem.code))


def _present(found: UpdateView) -> list[tuple[str, str]]:
    version = found.version.version if found.version is not None else ""
    state = stage_words(found.stage)
    if found.progress is not None and found.progress.total_bytes:
        share = 100 * found.progress.done_bytes // found.progress.total_bytes
        state += f" ({found.progress.phase}: {share} %)"
    pairs = [("State", f"{version}: {state}" if version and found.stage != "idle" else state)]
    if found.waits_for == "quiet":
        pairs.append(("At the latest", show.local_time(found.applies_at)))
    if found.waits_for == "reminder":
        pairs.append(("Not before", show.local_time(found.remind_at)))
    if found.next_try_at:
        pairs.append(("Tried again", show.local_time(found.next_try_at)))
    pairs.append(
        ("By itself", "when no task runs" if found.automatic else "no: `ostler update apply` does it")
    )
    pairs.append(("Last check", show.local_time(found.checked_at) if found.checked_at else "none yet"))
    if found.next_check_at:
        pairs.append(("Next check", show.local_time(found.next_check_at)))
    if found.previous:
        pairs.append(("Version before", f"{found.previous} (`ostler update rollback`)"))
    return pairs


def _became(result: str, reason: Condition | None) -> str:
    told = {"committed": "updated", "rolled_back": "went back", "failed": "not put in place"}.get(
        result, result
    )
    return f"{told}: {_why(reason)}" if reason is not None else told
