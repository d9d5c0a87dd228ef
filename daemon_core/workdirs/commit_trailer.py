"""The ``Co-authored-by`` trailer: a hook of one work tree, put there and taken away by setting.

``core.hooksPath`` of the work tree alone (``config.worktree``) leads to a directory in its git directory. The
hooks there hand everything on to the hooks that would have run without it, found at the time they run, so
that those of the user and of the repository (husky and its like) go on working. The directory goes with the
work tree.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Final

from daemon_core.workdirs.repository_errors import RepositoryInputError

MARKER: Final = "ostler: co-author trailer"
HOOKS_NAME: Final = "ostler-hooks"
MULTICA_TRAILER: Final = "Co-authored-by: multica-agent <github@multica.ai>"
"""The protocol's own."""
_IDENTITY: Final = re.compile(r"[^<>\n\r]{1,100} <[^<>\s]{1,200}>")

# Client-side hooks of githooks(5). reference-transaction and post-index-change are left out: they run at
# every change of a ref or the index, and so would this dispatcher.
_HOOKS: Final = (
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "post-rewrite",
)

_DISPATCH: Final = """#!/bin/sh
# {marker}: hands on to the hook that would run without it.
hooks=
for scope in --local --global --system; do
    hooks=$(git config $scope --type=path --get core.hooksPath 2>/dev/null) && break
done
[ -n "$hooks" ] || hooks=$(git rev-parse --git-common-dir)/hooks
if [ -x "$hooks/{name}" ]; then
    {run} "$hooks/{name}" "$@"{after}
fi
"""

_TRAILER: Final = """git interpret-trailers --in-place --if-exists addIfDifferent --trailer {trailer} "$1"
"""


def trailer_of(identity: str) -> str:
    """The trailer for ``Name <mail>``; empty for an empty identity.

    Raises:
        RepositoryInputError: ``bad_identity``.
    """
    identity = identity.strip()
    if not identity:
        return ""
    if not _IDENTITY.fullmatch(identity):
        raise RepositoryInputError("bad_identity", "a co-author has the form: Name <name@example.com>")
    return f"Co-authored-by: {identity}"


def wanted_trailer(settings: dict[str, object] | None) -> str:
    """The trailer that a Multica workspace's settings ask for; "" where they switch it off."""
    settings = settings or {}
    if settings.get("github_enabled") is False or settings.get("co_authored_by_enabled") is False:
        return ""
    return MULTICA_TRAILER


def install(git_dir: Path, trailer: str) -> Path:
    """Write the hooks for a work tree; gives the directory that ``core.hooksPath`` has to name."""
    directory = git_dir / HOOKS_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in _HOOKS:
        adds = name == "prepare-commit-msg"
        script = _DISPATCH.format(
            marker=MARKER, name=name, run="" if adds else "exec", after=" || exit $?" if adds else ""
        )
        if adds:
            script += _TRAILER.format(trailer=shlex.quote(trailer))
        _write(directory / name, script)
    return directory


def remove(git_dir: Path) -> None:
    """Take the hooks away again."""
    shutil.rmtree(git_dir / HOOKS_NAME, ignore_errors=True)


def _write(path: Path, script: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(script, "utf-8")
    temporary.chmod(0o700)
    os.replace(temporary, path)
