"""A stand-in for any agent that speaks ACP: it does what its prompt says, for tests of arguments and crashes.

``install_scripted_acp(bin_dir, "kimi")`` puts it there under that name. The prompt is JSON,
``{"steps": [...]}`` with one object a step (``script(...)`` makes it); another one is answered with
``You said: <prompt>``:

    {"text": "..."} {"thinking": "..."} {"update": {...}}     one update each
    {"tool": {"id", "title", "kind", "rawInput", "output"}}   a call and its end
    {"tool_start": {...}} {"tool_end": {...}}                 one of the two
    {"ask": {"title": "..."}}        asks for permission and says the chosen option as a text
    {"request": "method"}            asks something else and says the error's code as a text
    {"wait_for": PATH} {"touch": PATH} {"append": {"path", "text"}}
    {"stderr": "..."} {"error": {"code", "message", "data"}} {"stop": "max_tokens"} {"exit": CODE}
    {"spawn": {"pid_file": PATH}}    a child in a session of its own that sleeps
    {"ignore_eof": true}             it stays when its standard input is closed

In the environment, from the names of a directory ``SCRIPTED_ACP``: ``received`` gets a line for each message
that comes in, ``argv`` the arguments, ``environ`` the environment; a file ``hold-<method>`` (with ``/`` as
``-``) holds the answers to that method as long as it is there; ``sessions`` has a file for each session, and
resuming another one is refused; ``offers.json`` is merged into the answers to ``initialize`` (``hello``) and
to opening a session (``session``).
"""

# ruff: noqa: E402 - the version is told before anything is imported

import os
import sys

VERSION = "9.9.9"

if __name__ == "__main__" and "--version" in sys.argv:
    print(VERSION)  # noqa: T201
    sys.stdout.flush()
    os._exit(0)

import json
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

POLL_S = 0.02


class Cancelled(Exception):  # noqa: N818 - not an error
    """The client has broken the turn off."""


class Agent:
    def __init__(self, place: str) -> None:
        self.place = place
        self.buffer = b""
        self.eof = False
        self.stays = False
        self.session = ""
        self.asked = 1000
        self.offers: dict[str, Any] = {}
        offers = os.path.join(place, "offers.json")
        if os.path.exists(offers):
            with open(offers) as stream:
                self.offers = json.load(stream)

    # --- input and output ---

    def read(self, wait_s: "float | None") -> "dict[str, Any] | None":
        """The next message; None if none comes in time, or no more."""
        while b"\n" not in self.buffer:
            if self.eof or (wait_s is not None and not select.select([0], [], [], wait_s)[0]):
                return None
            data = os.read(0, 1 << 20)
            self.eof = not data
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        _append(os.path.join(self.place, "received"), line.decode() + "\n")
        found = json.loads(line)
        return found if isinstance(found, dict) else {}

    def say(self, **fields: "Any") -> None:
        view = memoryview(json.dumps({"jsonrpc": "2.0", **fields}, ensure_ascii=False).encode() + b"\n")
        while view:
            view = view[os.write(1, view) :]

    def update(self, kind: str, /, **fields: "Any") -> None:
        params = {"sessionId": self.session, "update": {"sessionUpdate": kind, **fields}}
        self.say(method="session/update", params=params)

    def text(self, text: str) -> None:
        self.update("agent_message_chunk", content={"type": "text", "text": text})

    def ask(self, method: str, params: "dict[str, Any]") -> "dict[str, Any]":
        """Ask the client and wait for its answer."""
        self.asked += 1
        self.say(id=self.asked, method=method, params=params)
        while (message := self.read(None)) is not None:
            self.attend(message)
            if message.get("id") == self.asked and "method" not in message:
                return message
        raise Cancelled

    def attend(self, message: "dict[str, Any] | None") -> None:
        if message is not None and message.get("method") == "session/cancel":
            raise Cancelled

    def wait_until(self, path: str, there: bool) -> None:
        while os.path.exists(path) != there:
            if self.eof:
                time.sleep(POLL_S)
            else:
                self.attend(self.read(POLL_S))

    # --- the conversation ---

    def main(self) -> int:
        while (message := self.read(None)) is not None:
            method = message.get("method")
            if not isinstance(method, str) or "id" not in message:
                continue
            self.hold(method)
            try:
                self.say(id=message["id"], result=self.answer(method, message.get("params") or {}))
            except Refused as refused:
                self.say(id=message["id"], error=refused.args[0])
        while self.stays:
            time.sleep(1)
        return 0

    def hold(self, method: str) -> None:
        path = os.path.join(self.place, "hold-" + method.replace("/", "-"))
        while os.path.exists(path):
            time.sleep(POLL_S)

    def answer(self, method: str, params: "dict[str, Any]") -> "dict[str, Any]":
        sessions = os.path.join(self.place, "sessions")
        os.makedirs(sessions, exist_ok=True)
        match method:
            case "initialize":
                capabilities = {"loadSession": True, "mcpCapabilities": {"http": True, "sse": True}}
                hello = {"protocolVersion": 1, "agentCapabilities": capabilities}
                return {**hello, **self.offers.get("hello", {})}
            case "session/new":
                self.session = f"session-{os.getpid()}"
                _append(os.path.join(sessions, self.session), "")
                return {"sessionId": self.session, **self.offers.get("session", {})}
            case "session/load" | "session/resume":
                self.session = str(params.get("sessionId"))
                if not os.path.exists(os.path.join(sessions, self.session)):
                    raise Refused({"code": -32603, "message": f"session not found: {self.session}"})
                if method == "session/load":
                    self.update("user_message_chunk", content={"type": "text", "text": "earlier"})
                    self.text("what was said earlier")
                return dict(self.offers.get("session", {}))
            case "session/prompt":
                return self.turn("".join(part.get("text", "") for part in params["prompt"]))
            case _:
                return {}

    def turn(self, prompt: str) -> "dict[str, Any]":
        reason = "end_turn"
        try:
            for step in _steps(prompt):
                ((name, value),) = step.items()
                if name == "stop":
                    reason = value
                else:
                    getattr(self, "do_" + name)(value)
        except Cancelled:
            reason = "cancelled"
        usage = {"inputTokens": 100, "outputTokens": 12, "totalTokens": 112, "cachedReadTokens": 40}
        return {"stopReason": reason, "usage": usage}

    def do_text(self, text: str) -> None:
        self.text(text)

    def do_thinking(self, text: str) -> None:
        self.update("agent_thought_chunk", content={"type": "text", "text": text})

    def do_update(self, update: "dict[str, Any]") -> None:
        self.update(update["sessionUpdate"], **{key: update[key] for key in update if key != "sessionUpdate"})

    def do_tool(self, tool: "dict[str, Any]") -> None:
        self.do_tool_start(tool)
        self.do_tool_end(tool)

    def do_tool_start(self, tool: "dict[str, Any]") -> None:
        call = {
            "title": "ls",
            "kind": "execute",
            **{key: tool[key] for key in tool if key not in ("id", "output")},
        }
        self.update("tool_call", toolCallId=tool.get("id", "call-1"), status="in_progress", **call)

    def do_tool_end(self, tool: "dict[str, Any]") -> None:
        content = [{"type": "content", "content": {"type": "text", "text": tool.get("output", "")}}]
        self.update(
            "tool_call_update", toolCallId=tool.get("id", "call-1"), status="completed", content=content
        )

    def do_ask(self, ask: "dict[str, Any]") -> None:
        options = [
            {"optionId": f"{kind}-option", "name": kind, "kind": kind}
            for kind in ("allow_always", "allow_once", "reject_once")
        ]
        call = {"toolCallId": "asked-1", "kind": "execute", "status": "pending", "title": "rm x", **ask}
        params = {"sessionId": self.session, "toolCall": call, "options": options}
        outcome = self.ask("session/request_permission", params)["result"]["outcome"]
        self.text(f"The answer was {outcome.get('optionId', outcome['outcome'])}.")

    def do_request(self, method: str) -> None:
        self.text(f"The error was {self.ask(method, {})['error']['code']}.")

    def do_wait_for(self, path: str) -> None:
        self.wait_until(path, True)

    def do_touch(self, path: str) -> None:
        _append(path, "")

    def do_append(self, what: "dict[str, str]") -> None:
        _append(what["path"], what["text"])

    def do_stderr(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def do_error(self, error: "dict[str, Any]") -> None:
        raise Refused(error)

    def do_exit(self, code: int) -> None:
        os._exit(code)

    def do_ignore_eof(self, _: object) -> None:
        self.stays = True

    def do_spawn(self, what: "dict[str, str]") -> None:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            _append(what["pid_file"], f"{os.getpid()}\n")
            time.sleep(60)
            os._exit(0)


class Refused(Exception):  # noqa: N818 - an answer
    """A request is answered with an error."""


def _steps(prompt: str) -> "list[dict[str, Any]]":
    start = prompt.find('{"steps"')
    if start >= 0:
        # Whatever a daemon writes around the prompt does not matter.
        found, _ = json.JSONDecoder().raw_decode(prompt[start:])
        return list(found["steps"])
    return [{"text": f"You said: {prompt[:1000]}"}]


def _append(path: str, text: str) -> None:
    with open(path, "a") as stream:
        stream.write(text)


# --- for tests -----------------------------------------------------------------------------------


def script(*steps: "dict[str, Any]") -> str:
    """A prompt that makes the agent take these steps."""
    return json.dumps({"steps": list(steps)})


def install_scripted_acp(bin_dir: "Path", name: str, version: str = VERSION) -> "Path":
    """Put the agent into ``bin_dir`` as an executable of that name; gives its path."""
    with open(__file__) as stream:
        source = stream.read()
    # Isolated and without site: nothing of the test's own Python, and a quick start.
    source = f"#!{sys.executable} -IS\n" + source.replace(
        f'VERSION = "{VERSION}"', f"VERSION = {version!r}", 1
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
    where = os.environ["SCRIPTED_ACP"]
    os.makedirs(where, exist_ok=True)
    with open(os.path.join(where, "argv"), "w") as stream:
        json.dump(sys.argv[1:], stream)
    with open(os.path.join(where, "environ"), "w") as stream:
        json.dump(dict(os.environ), stream)
    sys.exit(Agent(where).main())
