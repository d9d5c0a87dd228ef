"""Whether the end of a command's output looks like a question that nobody answers.

Only text that a program leaves at the cursor counts: a prompt is the last line, mostly without a line end,
and short. What looks like one and is none costs a notice; what is one and is missed costs the whole time
limit, so the list is generous and the time before it is said is long.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from daemon_core.jobs.menus import MENU_LINES, is_menu

STALL_S: Final = 45.0
"""How long the output must not have grown."""
LINE_LIMIT_CHARS: Final = 400
"""A prompt is shorter; a line of data that has no end is not looked at."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What seems to be asked."""

    kind: str
    """password, confirm, pager, key, host_key, repl, enter, choice, menu."""
    advice: str
    """What to do about it, for an agent; ``{id}`` stands for the job's id."""


_SEND: Final = "Answer with `ostler job input {id} TEXT`, or kill it with `ostler job kill {id}`"
_KINDS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    (
        "host_key",
        re.compile(r"continue connecting \(yes/no", re.I),
        "It asks whether to trust an unknown host. Only say yes (`ostler job input {id} yes`) if the user"
        " wants that; otherwise kill it and say that the host key is not known",
    ),
    (
        "password",
        re.compile(
            r"(pass(word|phrase|code)|\bpin\b|verification code|one-time code|token|secret)"
            r"[^\n]{0,80}[:?>]\s*$",
            re.I,
        ),
        "It waits for a password or a code. Do not guess one: kill it with `ostler job kill {id}`, and use a"
        " way that does not ask, or tell the user what is needed",
    ),
    (
        "pager",
        re.compile(
            r"(--\s?more\s?--(\s?\(\d+%\))?|\(END\)|lines \d+-\d+(/\d+)?( \(END\)|[^\n]{0,20}%\)?)?"
            r"|^\s*:|press h for help[^\n]{0,40}|Manual page [^\n]{0,120})\s*$",
            re.I | re.M,
        ),
        "It shows its output in a pager. `ostler job input {id} --no-newline q` leaves it; next time set"
        " PAGER=cat or use the option that switches the pager off",
    ),
    (
        "confirm",
        re.compile(
            r"([\[(]\s*(y(es)?\s*[/|]\s*n(o)?|n(o)?\s*[/|]\s*y(es)?)([/|][^\])\n]{0,30})?\s*[\])]"
            r"|\b(y/n|yes/no)\b|are you sure|is this ok|ok to proceed|overwrite\b[^\n]{0,80}\?"
            r"|\b(proceed|continue)\b[^\n]{0,40}\?)"
            r"[^\n]{0,40}$",
            re.I,
        ),
        "It asks for a yes or a no. " + _SEND + "; many programs take an option such as --yes",
    ),
    (
        "key",
        re.compile(
            r"(press|hit|strike)\s+(any key|a key|\[?(enter|return|space)\]?|<[^>\n]{1,12}>|ctrl)"
            r"[^\n]{0,60}$",
            re.I,
        ),
        "It waits for a key. `ostler job input {id} ''` sends Enter",
    ),
    (
        "repl",
        re.compile(
            r"^(>>>|\.\.\.|In \[\d+\]:|(mysql|sqlite|ghci|julia|node|scala|ftp|telnet)>|MariaDB [^\n>]{0,40}>"
            r"|irb[^\n>]{0,40}>|\((gdb|Pdb|lldb|ipdb)\)|ipdb>|\w{1,30}[=-][#>]|[>?#$])\s?$",
        ),
        "It is an interactive interpreter that waits for input. Give it `--eof`, or kill it and pass the"
        " commands as a script",
    ),
    (
        "choice",
        re.compile(
            r"(\b(select|choose|choice|selection|option|pick)\b[^\n]{0,80}[:?>\])]\s*$|\(use arrow keys\)"
            r"|^\s*[\u276f?] .{1,200}$)",
            re.I | re.M,
        ),
        "It asks for a choice. " + _SEND,
    ),
    (
        "enter",
        re.compile(
            r"(\b(enter|type|input|provide|specify|login|log in|user ?name|e-?mail|name|value|path|url"
            r"|address)\b[^\n]{0,80}[:>]\s*(\([^\n)]{0,80}\)\s*|\[[^\n\]]{0,80}\]\s*)?|[^\n]{0,200}\?\s*"
            # A colon and one space are what most programs leave before the cursor.
            r"|[^\n]{0,160}[\w)\]'\"]: )$",
            re.I,
        ),
        "It asks for something. " + _SEND,
    ),
)


def prompt_of(tail: str, raw: bytes = b"") -> Prompt | None:
    """What the end of an output asks, None where it asks nothing.

    Args:
        tail: The end of the output as a terminal would show it, control sequences taken out.
        raw: The same as it came: a pager shows the name of a file in reverse video as its prompt.
    """
    if _REVERSE.search(raw):
        return _PAGER
    if is_menu(tail.splitlines()[-MENU_LINES:]):
        return _MENU
    lines = tail.rstrip("\n\r").splitlines()
    if not lines:
        return None
    # Only for the kinds that are sure is a line looked at that has an end.
    last = lines[-1].strip("\x00")
    if not last.strip() or len(last) > LINE_LIMIT_CHARS:
        return None
    ended = tail.endswith(("\n", "\r"))
    for kind, pattern, advice in _KINDS:
        wanted = _WITH_END.get(kind) if ended else pattern
        if wanted is not None and wanted.search(last):
            return Prompt(kind=kind, advice=advice)
    return None


_MENU: Final = Prompt(
    kind="menu",
    advice="It shows a menu. `ostler job input {id} ''` takes what is marked, `ostler job input {id}"
    " --no-newline $'\\e[B'` moves the mark down by one. Surer is the option that names the choice, or one"
    " such as --yes: kill it with `ostler job kill {id}` and start it with that",
)
_PAGER: Final = next(Prompt(kind=kind, advice=advice) for kind, _, advice in _KINDS if kind == "pager")
_REVERSE: Final = re.compile(rb"\x1b\[7m[^\n\x1b]{1,200}\x1b\[(27|0)?m(\x1b\[K)?\Z")
_WITH_END: Final[dict[str, re.Pattern[str]]] = {
    "host_key": re.compile(r"continue connecting \(yes/no", re.I),
    # A log may speak of passwords and tokens; a question begins like a sentence and ends with a colon.
    "password": re.compile(
        r"^(?!(?i:error|warning|note|fatal|info|debug)\b)[A-Z\[(][^\n<>]{0,80}\b"
        r"([Pp]assword|[Pp]assphrase|PIN|([Vv]erification|[Oo]ne-time|[Ss]ecurity) code)\b[^\n<>]{0,40}:\s*$"
        r"|^(Password|Passphrase|Passcode|PIN)\s*:\s*$"
    ),
    "confirm": re.compile(
        r"([\[(]\s*(y(es)?\s*[/|]\s*n(o)?|n(o)?\s*[/|]\s*y(es)?)([/|][^\])\n]{0,30})?\s*[\])]\s*[?:]?"
        r"|\b(are you sure|is this ok|ok to proceed|overwrite|proceed|continue)\b[^\n]{0,80}\?)\s*$",
        re.I,
    ),
    "key": next(pattern for kind, pattern, _ in _KINDS if kind == "key"),
}
"""What is asked on a line of its own, too, with the answer wanted below it; narrower, since most of what
has a line end is no question."""
