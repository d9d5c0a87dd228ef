"""``ostler spend``: what tasks cost, and going on beyond the limit of a day."""

from __future__ import annotations

from collections.abc import Iterable

import click

from daemon_core.cli import show
from daemon_core.cli.base import Command as _Command
from daemon_core.cli.base import LazyGroup, pass_session, session_of
from daemon_core.cli.session import Session, pages
from daemon_core.cli.words import plural
from daemon_core.control.spend_views import SpendEntry, SpendReport
from daemon_core.control.views import SpendView

DAYS = 7


class _Group(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        if not ctx._protected_args and not ctx.args:
            _report(session_of(ctx), DAYS)
            return None
        return super().invoke(ctx)


spend = _Group(
    "spend",
    {
        "show": ("spend:show_days", "What tasks cost, day by day."),
        "continue": ("spend:go_on", "Take tasks again today, whatever they cost."),
    },
    help="What tasks cost: as agents state it, else by list prices. `spend.daily_limit` limits a day.",
    invoke_without_command=True,
    no_args_is_help=False,
)


@click.command("show", cls=_Command)
@click.option("--days", type=click.IntRange(1, 400), default=DAYS, show_default=True, help="How many days.")
@pass_session
def show_days(session: Session, days: int) -> None:
    """What tasks cost, day by day."""
    _report(session, days)


@click.command("continue", cls=_Command)
@pass_session
def go_on(session: Session) -> None:
    """Take tasks again today, whatever they cost. From midnight on the limit holds again."""
    found = session.call(SpendView, "POST", "/v1/spend/continue")
    if session.json:
        session.document(found)
    else:
        click.echo("Tasks are taken again today, whatever they cost.")


def dollars(amount: float | None, how: str) -> str:
    """ "$1.20", "about $1.20" (by list prices), "at least $1.20", "unknown"."""
    if amount is None or how == "unknown":
        return "unknown"
    sign = f"${amount:.2f}" if amount >= 0.01 or amount == 0 else "<$0.01"
    return {"priced": f"about {sign}", "partial": f"at least {sign}"}.get(how, sign)


def today_sentence(today: SpendView) -> str:
    """How the day stands, for people."""
    spent = ("at least " if today.unknown_tasks else "") + f"${today.spent:.2f}"
    told = f"Today: {spent}" + (f" of ${today.limit:.2f}" if today.limit else "")
    if today.held:
        told += f"; no more tasks are taken before {show.local_time(today.resets_at)}"
    elif today.limit and today.allowed and today.spent >= today.limit:
        told += "; you let this day go on"
    return told + "."


def _report(session: Session, days: int) -> None:
    found = session.call(SpendReport, "GET", pages("/v1/spend", days=days))
    if session.json:
        session.document(found)
        return
    click.echo(today_sentence(found.today))
    if found.entries:
        click.echo(show.table(("DAY", "SERVER", "AGENT", "MODEL", "TOKENS", "COST"), _rows(found.entries)))
    if found.unknown_models:
        session.note(
            f"Of {plural(len(found.unknown_models), 'model')} no price is known:"
            f" {', '.join(found.unknown_models)}",
            "Give it in prices.toml beside the settings",
        )
    dated = sorted({price.as_of for price in found.prices if price.as_of})
    if any(entry.how == "priced" for entry in found.entries) and dated:
        session.note(
            f"“About” is by list prices as of {dated[0]}", "Agents state their own costs where they can"
        )


def _rows(entries: Iterable[SpendEntry]) -> Iterable[tuple[str, ...]]:
    for entry in entries:
        tokens = entry.input_tokens + entry.output_tokens + entry.cache_read_tokens + entry.cache_write_tokens
        yield (
            entry.day,
            entry.connection,
            entry.agent or entry.provider,
            show.one_line(entry.model, 40) or "-",
            f"{tokens:,}",
            dollars(entry.cost, entry.how),
        )
