"""``ostler version``."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click

import daemon_core
from daemon_core.cli.base import Command, pass_session
from daemon_core.cli.session import Session
from daemon_core.settings import installed


@click.command(cls=Command)
@pass_session
def version(session: Session) -> None:
    """Print the version."""
    facts = {
        "version": daemon_core.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "commit": _commit(),
    }
    if session.json:
        session.document(facts)
        return
    commit = f", commit {facts['commit'][:12]}" if facts["commit"] else ""
    click.echo(f"ostler {facts['version']} (Python {facts['python']}, {facts['platform']}{commit})")


def _commit() -> str:
    """The commit: a payload's own word, else that of a checkout, read from its files (git need not be there).
    Empty in any other installed copy."""
    if installed.FROZEN:
        return str(installed.payload().get("commit", ""))
    repository = Path(daemon_core.__file__).resolve().parents[1] / ".git"
    if "site-packages" in repository.parts or Path(sys.prefix) in repository.parents:
        return ""
    try:
        if repository.is_file():  # a worktree: the file names its own directory
            repository = (
                repository.parent / repository.read_text().partition("gitdir:")[2].strip()
            ).resolve()
        head = (repository / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        name = head.partition(":")[2].strip()
        common = repository / "commondir"
        if common.exists():
            repository = (repository / common.read_text().strip()).resolve()
        if (repository / name).exists():
            return (repository / name).read_text().strip()
        for line in (repository / "packed-refs").read_text().splitlines():
            if line.endswith(f" {name}"):
                return line.split()[0]
    except OSError:
        pass
    return ""
