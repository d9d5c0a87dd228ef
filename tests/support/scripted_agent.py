"""A stand-in for Claude Code that does what its prompt says: for crash tests and benchmarks.

``install_scripted_agent(bin_dir)`` puts it there as ``claude``. It speaks the same JSON lines in both
directions, starts in some 15 ms and prints 200,000 lines a second. The prompt (or the file named by
``SCRIPTED_AGENT_FILE``, or ``SCRIPTED_AGENT_SCRIPT`` itself) is JSON: ``{"steps": [...]}`` with one object a
step. A prompt that is something else is answered with ``You said: <prompt>``. ``script(...)`` makes such a
prompt.

Output:
    {"text": "..."}                  one text block
    {"lines": N, "text": "line {n}", "from": 1}   N numbered texts, as fast as it can
    {"thinking": "..."}
    {"tool": {"name", "input", "output", "id", "is_error"}}    a call and its result
    {"tool_start": {...}} {"tool_end": {...}}                  one of the two
    {"ask": {"tool": "Bash", "input": {}}}  can_use_tool; waits for the answer, then says it as a text
    {"raw": "text"} {"raw_base64": "..."}   bytes as they are
    {"invalid_json": true} {"invalid_utf8": true} {"long_line": BYTES}
    {"stderr": "..."}
    {"session": "id"}                another session id from here on
    {"result": {...}}                the terminal line, with these fields over the usual ones
    {"error": 401, "message": "..."} as the real one after a refused request, then the end with code 1
    {"max_turns": true}              error_max_turns
Time:
    {"sleep": S} {"wait_for": PATH} {"touch": PATH} {"write": {"path", "text"}} {"append": {"path", "text"}}
Processes:
    {"spawn": {"seconds": S, "pid_file": PATH}}   a child in a session of its own that sleeps
    {"run": ARGV}                    a command, to its end
    {"count_start": PATH}            append this process's id, one line
    {"dump": PATH}                   argv, environment and directory as JSON
    {"ignore_sigterm": true}
End:
    {"exit": CODE}                   at once, without a result
    {"die": SIGNAL}                  by that signal
    {"no_result": true}              exit 0 once standard input is closed, but without a result

After the steps a success ``result`` with the last text is printed, and once standard input is closed, it
exits. An interrupt (a control request) ends waiting and sleeping with an ``error_during_execution`` result.
In the environment: ``SCRIPTED_AGENT_STARTS`` (a file that gets this process's id at once),
``SCRIPTED_AGENT_SESSIONS`` (a directory of known sessions: resuming another one is refused),
``SCRIPTED_AGENT_PROBE_LOG`` (a file that gets a line for each ``--version``).
"""

# ruff: noqa: E402 - the version is told before anything is imported

import os
import sys

VERSION = "2.1.197 (Claude Code)"

if __name__ == "__main__" and "--version" in sys.argv:
    if log := os.environ.get("SCRIPTED_AGENT_PROBE_LOG"):
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()}\n")
    print(VERSION)  # noqa: T201
    # Nothing to clean up, and nothing else to import.
    sys.stdout.flush()
    os._exit(0)

import base64
import json
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, NoReturn

POLL_S = 0.02


class Interrupted(Exception):  # noqa: N818 - not an error
    """An interrupt came in while waiting."""


class Agent:
    def __init__(self, argv: "list[str]") -> None:
        self.argv = argv
        self.buffer = b""
        self.closed = False
        self.session = self.option("--resume") or _uuid()
        self.calls = 0
        self.last_text = ""
        self.wants_result = True
        self.exit_code = 0

    def option(self, name: str) -> str:
        for at, arg in enumerate(self.argv):
            if arg == name and at + 1 < len(self.argv):
                return self.argv[at + 1]
            if arg.startswith(name + "="):
                return arg.partition("=")[2]
        return ""

    # --- input ---

    def read_line(self, wait_s: "float | None") -> "dict[str, Any] | None":
        """The next line of standard input; None if none comes in time, or no more."""
        while b"\n" not in self.buffer:
            if self.closed:
                return None
            if wait_s is not None and not select.select([0], [], [], wait_s)[0]:
                return None
            data = os.read(0, 1 << 20)
            if not data:
                self.closed = True
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        found = json.loads(line)
        return found if isinstance(found, dict) else {}

    def attend(self, wait_s: float) -> None:
        """Wait a moment, with an ear for an interrupt."""
        if self.closed:
            time.sleep(wait_s)
            return
        line = self.read_line(wait_s)
        if line is None or line.get("type") != "control_request":
            return
        response = {"subtype": "success", "request_id": line.get("request_id")}
        self.emit({"type": "control_response", "response": response})
        if line.get("request", {}).get("subtype") == "interrupt":
            raise Interrupted

    # --- output ---

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def emit(self, line: "dict[str, Any]") -> None:
        line.setdefault("session_id", self.session)
        self.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def block(self, block: "dict[str, Any]") -> None:
        message = {"role": "assistant", "model": "stub-model", "content": [block]}
        self.emit({"type": "assistant", "message": message})

    def result(self, **fields: "Any") -> None:
        usage = {"inputTokens": 10, "outputTokens": 12, "cacheReadInputTokens": 3}
        self.emit(
            {
                "type": "result",
                "subtype": "success",
                "is_error": False,
                "api_error_status": None,
                "num_turns": 1,
                "result": self.last_text,
                "modelUsage": {"stub-model": {**usage, "cacheCreationInputTokens": 2}},
                "permission_denials": [],
                "terminal_reason": "completed",
                **fields,
            }
        )
        self.wants_result = False

    # --- the script ---

    def main(self) -> int:
        sessions = os.environ.get("SCRIPTED_AGENT_SESSIONS")
        if sessions:
            os.makedirs(sessions, exist_ok=True)
            if self.option("--resume") and not os.path.exists(os.path.join(sessions, self.session)):
                text = f"No conversation found with session ID: {self.session}"
                self.read_line(None)
                sys.stderr.write(text + "\n")
                self.result(subtype="error_during_execution", is_error=True, errors=[text], modelUsage={})
                return 1
            with open(os.path.join(sessions, self.session), "w"):
                pass
        while True:
            line = self.read_line(None)
            if line is None:
                return self.exit_code
            if line.get("type") == "user":
                self.turn(line)

    def turn(self, line: "dict[str, Any]") -> None:
        prompt = "".join(part.get("text", "") for part in line["message"]["content"])
        self.wants_result = True
        self.emit(
            {
                "type": "system",
                "subtype": "init",
                "model": self.option("--model") or "stub-model",
                "tools": ["Bash"],
                "mcp_servers": [],
                "permissionMode": "bypassPermissions",
            }
        )
        try:
            for step in _steps(prompt):
                for name, value in step.items():
                    handler = getattr(self, "do_" + name, None)
                    if handler is not None:
                        handler(value, step)
                        break
                else:
                    raise SystemExit(f"no such step: {step}")
        except Interrupted:
            self.exit_code = 1
            self.result(
                subtype="error_during_execution",
                is_error=True,
                terminal_reason="aborted_tools",
                errors=["Request was aborted."],
            )
        if self.wants_result:
            self.result()

    def do_text(self, text: str, step: object) -> None:
        self.last_text = text
        self.block({"type": "text", "text": text})

    def do_lines(self, count: int, step: "dict[str, Any]") -> None:
        first = step.get("from", 1)
        head, _, tail = step.get("text", "line {n}").partition("{n}")
        block = {"type": "text", "text": head + "\0" + tail}
        message = {"role": "assistant", "model": "stub-model", "content": [block]}
        line = {"type": "assistant", "message": message, "session_id": self.session}
        before, _, after = json.dumps(line).partition("\\u0000")
        after += "\n"
        for start in range(first, first + count, 1000):
            stop = min(start + 1000, first + count)
            joint = after + before
            self.write((before + joint.join(map(str, range(start, stop))) + after).encode())
        self.last_text = f"{head}{first + count - 1}{tail}"

    def do_thinking(self, text: str, step: object) -> None:
        self.block({"type": "thinking", "thinking": text, "signature": "c2lnbmVk"})

    def do_tool(self, tool: "dict[str, Any]", step: object) -> None:
        self.do_tool_start(tool, step)
        self.do_tool_end(tool, step)

    def do_tool_start(self, tool: "dict[str, Any]", step: object) -> None:
        self.calls += 1
        call_id = tool.get("id") or f"toolu_{self.calls}"
        name = tool.get("name", "Bash")
        self.block({"type": "tool_use", "id": call_id, "name": name, "input": tool.get("input", {})})

    def do_tool_end(self, tool: "dict[str, Any]", step: object) -> None:
        part = {
            "type": "tool_result",
            "tool_use_id": tool.get("id") or f"toolu_{self.calls}",
            "content": tool.get("output", ""),
            "is_error": tool.get("is_error", False),
        }
        self.emit({"type": "user", "message": {"role": "user", "content": [part]}})

    def do_ask(self, ask: "dict[str, Any]", step: object) -> None:
        request = {"subtype": "can_use_tool", "tool_name": ask.get("tool", "Bash")}
        request["input"] = ask.get("input", {})
        self.emit({"type": "control_request", "request_id": "ask-1", "request": request})
        answer = self.read_line(None) or {}
        said = answer.get("response", {}).get("response", {}).get("behavior", "nothing")
        self.do_text(f"The answer was {said}.", step)

    def do_raw(self, text: str, step: object) -> None:
        self.write(text.encode())

    def do_raw_base64(self, data: str, step: object) -> None:
        self.write(base64.b64decode(data))

    def do_invalid_json(self, _: object, step: object) -> None:
        self.write(b'{"type":"assistant","message":{"content":[\nWarning: something went wrong\n')

    def do_invalid_utf8(self, _: object, step: object) -> None:
        self.write(b"\xff\xfe\xfa not text \xc3\x28\n")

    def do_long_line(self, size: int, step: object) -> None:
        self.do_text("x" * size, step)

    def do_stderr(self, text: str, step: object) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def do_session(self, session: str, step: object) -> None:
        self.session = session

    def do_result(self, fields: "dict[str, Any]", step: object) -> None:
        self.exit_code = 1 if fields.get("is_error") else 0
        self.result(**fields)

    def do_error(self, status: int, step: "dict[str, Any]") -> None:
        text = f"API Error: {status} {step.get('message', 'scripted failure')}"
        message = {"role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": text}]}
        self.emit({"type": "assistant", "message": message, "error": "unknown"})
        self.do_result({"is_error": True, "api_error_status": status, "result": text}, step)

    def do_max_turns(self, _: object, step: object) -> None:
        errors = ["Reached maximum number of turns (1)"]
        fields = {"subtype": "error_max_turns", "is_error": True, "result": None}
        self.do_result({**fields, "terminal_reason": "max_turns", "errors": errors}, step)

    def do_sleep(self, seconds: float, step: object) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.attend(min(left, POLL_S))

    def do_wait_for(self, path: str, step: object) -> None:
        while not os.path.exists(path):
            self.attend(POLL_S)

    def do_touch(self, path: str, step: object) -> None:
        with open(path, "a"):
            pass

    def do_write(self, what: "dict[str, str]", step: object) -> None:
        with open(what["path"], "w") as stream:
            stream.write(what["text"])

    def do_append(self, what: "dict[str, str]", step: object) -> None:
        _append(what["path"], what["text"])

    def do_spawn(self, what: "dict[str, Any]", step: object) -> None:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            if pid_file := what.get("pid_file"):
                _append(pid_file, f"{os.getpid()}\n")
            time.sleep(what.get("seconds", 60))
            os._exit(0)

    def do_run(self, argv: "list[str]", step: object) -> None:
        null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        pid = os.posix_spawnp(argv[0], argv, dict(os.environ), file_actions=[null])
        os.waitpid(pid, 0)

    def do_count_start(self, path: str, step: object) -> None:
        _append(path, f"{os.getpid()}\n")

    def do_dump(self, path: str, step: object) -> None:
        with open(path, "w") as stream:
            json.dump({"argv": sys.argv, "environ": dict(os.environ), "cwd": os.getcwd()}, stream)

    def do_ignore_sigterm(self, _: object, step: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def do_exit(self, code: int, step: object) -> "NoReturn":
        sys.stderr.flush()
        os._exit(code)

    def do_die(self, number: int, step: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    def do_no_result(self, _: object, step: object) -> None:
        self.wants_result = False


def _steps(prompt: str) -> "list[dict[str, Any]]":
    text = prompt
    if path := os.environ.get("SCRIPTED_AGENT_FILE"):
        with open(path) as stream:
            text = stream.read()
    elif fixed := os.environ.get("SCRIPTED_AGENT_SCRIPT"):
        text = fixed
    start = text.find('{"steps"')
    if start >= 0:
        try:
            # Whatever a daemon writes around the prompt does not matter.
            found, _ = json.JSONDecoder().raw_decode(text[start:])
            return list(found["steps"])
        except ValueError:
            pass
    return [{"text": f"You said: {prompt[:1000]}"}]


def _append(path: str, text: str) -> None:
    with open(path, "a") as stream:
        stream.write(text)


def _uuid() -> str:
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


# --- for tests -----------------------------------------------------------------------------------


def script(*steps: "dict[str, Any]") -> str:
    """A prompt that makes the agent take these steps."""
    return json.dumps({"steps": list(steps)})


def install_scripted_agent(
    bin_dir: "Path", name: str = "claude", version: str = "2.1.197 (Claude Code)"
) -> "Path":
    """Put the agent into ``bin_dir`` as an executable of that name and version; gives its path."""
    with open(__file__) as stream:
        source = stream.read()
    # Isolated and without site: nothing of the test's own Python, and a quick start.
    source = f"#!{sys.executable} -IS\n" + source.replace(
        'VERSION = "2.1.197 (Claude Code)"', f"VERSION = {version!r}", 1
    )
    bin_dir.mkdir(parents=True, exist_ok=True)
    path = bin_dir / name
    # Written elsewhere first: an executable that is being written cannot be started.
    temporary = bin_dir / f".{name}.{os.getpid()}.tmp"
    temporary.write_text(source)
    temporary.chmod(0o755)
    temporary.rename(path)
    return path


if __name__ == "__main__":
    if starts := os.environ.get("SCRIPTED_AGENT_STARTS"):
        _append(starts, f"{os.getpid()}\n")
    sys.exit(Agent(sys.argv[1:]).main())
