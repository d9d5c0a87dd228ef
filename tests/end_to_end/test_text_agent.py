"""An agent that prints plain text, of which its session is known only from a log that it leaves: a stand-in
for Antigravity, whose arguments and log are as others describe them. Its prompt is an argument, and it reads
its standard input to the end all the same, as programs do that take more of the prompt from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.home import OstlerHome, check_transcript, wait_until

SESSION = "3f1c2f0a-7a58-4a0e-9d0c-0c9b8d1f2e3a"

STAND_IN = f"""#!/bin/bash
if [ "$1" = --version ]; then echo "agy 1.2.3"; exit 0; fi
printf '%s\\n' "$@" > "$HOME/args"
while [ $# -gt 0 ]; do
  if [ "$1" = --log-file ]; then echo "I0101 server.go:7] conversation={SESSION} ready" > "$2"; fi
  shift
done
cat > "$HOME/said"
echo "I begin."
while [ -e "$HOME/wait" ]; do sleep 0.05; done
echo "It is done."
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OstlerHome]:
    made = OstlerHome(tmp_path, claude=False)
    program = made.bin / "agy"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    yield made
    made.close()


def test_a_text_agent_survives_the_daemon_and_goes_on_in_its_session(home: OstlerHome) -> None:
    wait, args = home.user_home / "wait", home.user_home / "args"
    wait.touch()
    home.start()
    task = home.add("Do it", "antigravity")
    wait_until(lambda: len(home.transcript(task)) == 1, "the first line")
    shim = Path(f"/proc/{home.shim(task)['pid']}/cmdline").read_bytes()
    assert shim.endswith(b"\0--standby\0")  # it was begun before the task might start
    home.kill()
    wait.unlink()
    home.start()
    done = home.wait(task)
    assert (done["status"], done["result"]) == ("completed", "I begin.\nIt is done."), done["error"]
    assert done["session_id"] == SESSION
    home.wait_delivered(task)
    check_transcript(home, task, "I begin.\nIt is done.\n")
    assert "--conversation" not in args.read_text()
    assert (home.user_home / "said").read_bytes() == b""
    reply = home.call("POST", f"/v1/tasks/{task}/reply", {"prompt": "And more"})
    assert home.wait(reply["id"])["status"] == "completed"
    given = args.read_text().splitlines()
    assert given[given.index("--conversation") + 1] == SESSION
    assert given[given.index("--add-dir") + 1] == done["work_dir"]
