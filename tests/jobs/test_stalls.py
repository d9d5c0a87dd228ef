"""What looks like a question at the end of an output, and what does not."""

from __future__ import annotations

import pytest

from daemon_core.jobs.output import plain
from daemon_core.jobs.stalls import prompt_of

ASKS = [
    ("[sudo] password for ann: ", "password"),
    ("ann@host's password: ", "password"),
    ("Enter passphrase for key '/home/ann/.ssh/id_ed25519': ", "password"),
    ("Verification code: ", "password"),
    ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", "host_key"),
    ("Do you want to continue? [Y/n] ", "confirm"),
    ("Proceed (y/n)? ", "confirm"),
    ("Overwrite existing file? (yes/no) ", "confirm"),
    ("Is this ok [y/N]: ", "confirm"),
    ("Ok to proceed? (y) ", "confirm"),
    ("Press any key to continue . . . ", "key"),
    ("Press ENTER to continue", "key"),
    ("Hit enter when ready", "key"),
    ("line one\n--More--", "pager"),
    ("--More--(42%)", "pager"),
    ("last line\n(END)", "pager"),
    ("text\n:", "pager"),
    (" Manual page ls(1) line 1 (press h for help or q to quit)", "pager"),
    ("Python 3.11.7\n>>> ", "repl"),
    ("In [1]: ", "repl"),
    ("mysql> ", "repl"),
    ("postgres=# ", "repl"),
    ("(gdb) ", "repl"),
    ("package name: (app) ", "enter"),
    ("Username for 'https://example.com': ", "enter"),
    ("Enter a value: ", "enter"),
    ("What is your name? ", "enter"),
    ("Select an option [1-3]: ", "choice"),
    ("replace app/main.py? [y]es, [n]o, [A]ll, [N]one, [r]ename: ", "enter"),
    ("  12. Legacy\nGeographic area: ", "enter"),
    ("Command (m for help): ", "enter"),
]

ASKS_NOTHING = [
    "",
    "\n",
    "Compiling 37 of 120 files\n",
    "downloading 37%",
    "warning: unused variable: x\n",
    "Listening on http://127.0.0.1:8080\n",
    "Done.\n",
    "12:00:00 INFO worker: ready\n",
    "x" * 5000,
    "What does this mean?\n",  # a line that has ended
    "Compiling:",
    "step 3: \n",
]


@pytest.mark.parametrize(("tail", "kind"), ASKS)
def test_a_question_is_seen_for_what_it_is(tail: str, kind: str) -> None:
    found = prompt_of(tail)
    assert found is not None
    assert found.kind == kind
    assert found.advice


@pytest.mark.parametrize("tail", ASKS_NOTHING)
def test_what_is_no_question_is_none(tail: str) -> None:
    assert prompt_of(tail) is None


def test_the_name_of_a_file_in_reverse_video_is_a_pagers_prompt() -> None:
    raw = b"line\r\nline\r\n\x1b[7mREADME.md\x1b[27m\x1b[K"
    found = prompt_of(plain(raw), raw)
    assert found is not None
    assert found.kind == "pager"
    assert prompt_of(plain(raw)) is None


def test_a_question_is_seen_through_colours() -> None:
    raw = b"\x1b[1m\x1b[32m?\x1b[0m \x1b[1mContinue\x1b[0m \x1b[90m(y/N)\x1b[0m "
    found = prompt_of(plain(raw), raw)
    assert found is not None
    assert found.kind == "confirm"
