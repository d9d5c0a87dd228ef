"""Git repositories to clone from: in a directory, and over http on loopback behind a password.

``GitServer`` runs the real ``git http-backend`` for each request. Its password is known to a credential
helper alone: ``helper_config`` gives a git configuration that names one.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USER = "ostler-test"
PASSWORD = "s3cret-never-on-disk"


def git(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """One git command of a test; gives what it prints."""
    done = subprocess.run(
        ["git", "-c", "user.name=Tester", "-c", "user.email=tester@example.com", *arguments],
        cwd=cwd,
        env={**clean_environment(cwd), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.rstrip("\n")


def clean_environment(home: Path) -> dict[str, str]:
    """Without anything of the machine's own git configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


def make_repository(path: Path, files: dict[str, str] | None = None, *, branch: str = "main") -> Path:
    """A repository with one commit."""
    path.mkdir(parents=True)
    git("init", "--quiet", f"--initial-branch={branch}", cwd=path)
    add_commit(path, files if files is not None else {"README.md": "hello\n", "src/app.py": "print(1)\n"})
    return path


def add_commit(path: Path, files: dict[str, str], message: str = "more") -> str:
    """Another commit; gives its id."""
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    git("add", "--all", cwd=path)
    git("commit", "--quiet", "--allow-empty", "-m", message, cwd=path)
    return git("rev-parse", "HEAD", cwd=path)


class GitServer:
    """Serves the repositories below a directory on 127.0.0.1, with basic authentication.

    Attributes:
        open: Whether requests are answered; else they get 503, as from a server in trouble.
        requests: Paths asked for with the right password, in order.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open = True
        self.requests: list[str] = []
        self.hold: threading.Event | None = None
        """While set here and not set itself, packs are held back: a clone hangs in its middle."""
        self.held = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                server._answer(self)

            do_POST = do_GET  # noqa: N815 - the library's name

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def helper_config(self, path: Path) -> Path:
        """A git configuration with a credential helper that knows the password."""
        helper = path.with_name("credential-helper")
        helper.write_text(
            f'#!/bin/sh\ntest "$1" = get || exit 0\necho username={USER}\necho password={PASSWORD}\n'
        )
        helper.chmod(0o755)
        path.write_text(
            f"[credential]\n\thelper = {helper}\n[user]\n\tname = Tester\n\temail = tester@example.com\n"
        )
        return path

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not self.open:
            request.send_error(503)
            return
        if request.headers.get("Authorization") != f"Basic {wanted}":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="test"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self.requests.append(request.path)
        body = _body(request)
        if self.hold is not None and request.command == "POST" and b"want " in body:
            self.held.set()
            self.hold.wait(60)
        path, _, query = request.path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=False,
            env={
                **clean_environment(self.root),
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": request.command,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "REMOTE_USER": USER,
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        status = 200
        headers = []
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "status":
                status = int(value.split()[0])
            elif name:
                headers.append((name, value.strip()))
        try:
            request.send_response(status)
            for name, value in headers:
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
        except OSError:
            pass  # the git at the other end was killed


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))
