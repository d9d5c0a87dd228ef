# ruff: noqa: RUF001 - what programs draw is here as they draw it
"""What looks like a question at the end of an output, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    ("Enter your password:\n", "password"),
    ("Password:\r\n", "password"),
    ("Do you want to continue [Y/n]?\n", "confirm"),
    ("Remove 3 packages? (y/n):\n", "confirm"),
    ("Are you sure you want to go on?\n", "confirm"),
    ("Press any key to continue...\n", "key"),
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


MENUS = [
    # inquirer, the choices, and again after a key (the hint is gone)
    "? Which framework? (Use arrow keys)\n❯ React \n  Vue \n  Svelte ",
    "? Which framework? \n  React \n❯ Vue \n  Svelte ",
    "? Features (Press <space> to select, <a> to toggle all)\n❯◯ Lint\n ◉ Tests\n ◯ Router\n"
    "(Move up and down to reveal more choices)",
    # prompts
    "? Select a framework: › - Use arrow-keys. Return to submit.\n❯   Vanilla\n    Vue\n    React\n",
    "? Select some › \nInstructions:\n    ↑/↓: Highlight option\n    ←/→/[space]: Toggle selection\n"
    "    a: Toggle all\n    enter/return: Complete answer\n◯   React\n◯   Vue\n◯   Svelte",
    # clack
    "┌  Welcome\n│\n◆  Select a framework:\n│  ● Vanilla\n│  ○ Vue\n└\n",
    "◇  Name?\n│  app\n│\n◆  Install?\n│  ● Yes / ○ No\n└\n",
    # gh
    "? What would you like to do?  [Use arrows to move, type to filter]\n> Create it\n  Skip pushing\n",
    # gum, huh
    "Choose:\n> one\n  two\n  three\n\n←↓↑→ navigate • enter submit\n",
    "Are you sure?\n\n    Yes      No   \n\n←→ toggle • enter submit • y Yes • n No",
    "Country\n> Austria\n  Germany\n\n↑ up • ↓ down • / filter • enter submit\n",
    # questionary, inquire, dialoguer
    "? What do you want?  (Use arrow keys)\n » Pizza\n   Pasta\n",
    "? Which one?\n> a\n  b\n[↑↓ to move, enter to select, type to filter]\n",
    "? Pick ›\n❯ alpha\n  beta",
]
"""What the libraries draw that most programs use for it."""

ORDINARY = [
    "> app@1.0.0 build",
    "> vite build",
    "vite v5.0.0 building for production...",
    " ❯ src/a.test.ts (3 tests | 1 failed) 12ms",
    " ❯ src/a.test.ts:12:5",
    "     10|   const a = 1",
    "   × adds two numbers",
    "✓ 12 modules transformed.",
    "  ✔ Compiled successfully",
    "◇  Installed dependencies",
    "└  Done. Now run:",
    "│  npm run dev",
    "├── lodash@4.17.21",
    "└── react@18.2.0",
    "?   \tgithub.com/x/y/cmd\t[no test files]",
    "ok  \tgithub.com/x/y\t0.012s",
    "?? new-file.txt",
    "Use arrow keys in the docs to navigate: see docs/keys.md",
    "error[E0308]: mismatched types",
    "  --> src/main.rs:4:5",
    "   |",
    '4  |     let x: u32 = "a";',
    "   |                  ^^^ expected `u32`, found `&str`",
    "note: in instantiation of 'std::vector<token>'",
    "#include <secret>",
    "<password>***</password>",
    '  "token": "abc",',
    "warning: unused variable: `token`",
    "expected a token:",
    "[1/3] Resolving packages...",
    "[12/345] Building CXX object src/a.cc.o",
    "=> [2/5] RUN npm ci",
    "#5 12.31 added 214 packages in 12s",
    "Step 3/9 : RUN make",
    "make[1]: Entering directory '/src'",
    "gcc -O2 -o a a.c",
    "test result: ok. 12 passed; 0 failed",
    "12:00:01 INFO worker: select the next job",
    "E       AssertionError: assert 1 == 2",
    ">       assert add(1, 2) == 4",
    "tests/test_a.py::test_b PASSED   [ 50%]",
    "Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]",
    "Do you have a question? See the FAQ.",
    "Downloading numpy-2.0.0.whl (18.2 MB)",
    "  - item one",
    "  * item two",
    "Plan: 3 to add, 0 to change, 1 to destroy.",
    "",
    "Press release: we enter a new market",
    "Usage: prog [options] <file>",
    "  -y, --yes    do not ask (y/n) before",
]
"""Lines of builds, tests and logs that have something of a question and are none."""


@pytest.mark.parametrize("tail", MENUS)
def test_a_menu_for_the_arrow_keys_is_seen(tail: str) -> None:
    found = prompt_of("some output before\n" + tail)
    assert found is not None
    assert found.kind == "menu"


@pytest.mark.parametrize("tail", MENUS)
def test_a_menu_that_was_answered_is_over(tail: str) -> None:
    for after in ("\n✔ Which framework? · Vue\nScaffolding project...\n", "\nadded 12 packages in 3s\n"):
        assert prompt_of(tail + after) is None


def test_no_two_ordinary_lines_ask_anything() -> None:
    pairs = [f"{first}\n{last}\n" for first in ORDINARY for last in ORDINARY]
    assert [pair for pair in pairs if prompt_of(pair) is not None] == []


@settings(derandomize=True)
@given(st.lists(st.sampled_from(ORDINARY), max_size=12), st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_ordinary_lines_in_any_order_ask_nothing(lines: list[str], end: str) -> None:
    text = "".join(line + end for line in lines)
    assert prompt_of(text) is None, text
    raw = "".join(f"\x1b[32m{line}\x1b[0m{end}" for line in lines).encode()
    assert prompt_of(plain(raw), raw) is None, text


@pytest.mark.parametrize(
    "last",
    [
        "downloading 37% 4.1 MB/s eta 0:03", "[12/345] Building CXX object src/a.cc.o", "=> [2/5] RUN npm ci",
        "⠋ Building", "Resolving: total 12, reused 3, added 0", "  Compiling app v0.1.0", ".....F...",
        "[=====>      ] 40%", "test a::b ... ", "Receiving objects:  37% (12/34)",
    ],
)  # fmt: skip
def test_progress_that_has_no_line_end_yet_asks_nothing(last: str) -> None:
    assert prompt_of(f"a line\n{last}") is None
