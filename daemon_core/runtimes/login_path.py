"""PATH as the user's login shell sets it: a daemon that a desktop or a service manager started has another.

The shell is asked as an interactive login shell, since version managers write into the files that only such a
one reads. It gets no terminal and little time: what people have in those files can do anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from daemon_core.runtimes.probes import Answer, Question

LIMIT_S: Final = 3.0

# They take -l, -i and -c together, and printf and env as commands.
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ksh", "zsh", "fish"})
_START_FILES: Final = (
    "/etc/profile",
    "/etc/environment",
    "/etc/zsh/zshenv",
    "/etc/zshenv",
    "~/.profile",
    "~/.bash_profile",
    "~/.bash_login",
    "~/.bashrc",
    "~/.zshenv",
    "~/.zprofile",
    "~/.zshrc",
    "~/.zlogin",
    "~/.config/fish/config.fish",
)
_BEGIN: Final = "OSTLER-ENVIRONMENT-BEGINS"
_END: Final = "OSTLER-ENVIRONMENT-ENDS"
_PASSED_ENV: Final = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "XDG_CONFIG_HOME", "ZDOTDIR")


def question(environ: Mapping[str, str]) -> Question | None:
    """What to start to learn PATH; None where there is no shell that could be asked."""
    shell = environ.get("SHELL", "")
    if not os.path.isabs(shell) or os.path.basename(shell) not in _SHELLS:
        return None
    env = {name: environ[name] for name in _PASSED_ENV if name in environ}
    env |= {"TERM": "dumb", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    # The whole environment, not $PATH, which is a list in fish; between marks, since start files print
    # things.
    command = f"printf '\\n%s\\n' {_BEGIN}; env; printf '\\n%s\\n' {_END}"
    return Question(argv=(shell, "-l", "-i", "-c", command), env=env, limit_s=LIMIT_S)


def state(environ: Mapping[str, str]) -> str:
    """Changes when the answer may change: the shell, and its start files' sizes and times."""
    parts = [environ.get("SHELL", "")]
    home = environ.get("HOME", "")
    for name in _START_FILES:
        path = os.path.join(home, name[2:]) if name.startswith("~/") else name
        try:
            info = os.stat(path)
        except (OSError, ValueError):
            continue
        parts.append(f"{path}:{info.st_size}:{info.st_mtime_ns}")
    return "|".join(parts)


def path_in(answer: Answer) -> str:
    """PATH from the shell's answer, or empty."""
    _, begun, rest = answer.stdout.partition(f"\n{_BEGIN}\n")
    listed, ended, _ = rest.partition(f"\n{_END}\n")
    if answer.failure or not begun or not ended:
        return ""
    for line in listed.splitlines():
        if line.startswith("PATH="):
            return line[5:]
    return ""
