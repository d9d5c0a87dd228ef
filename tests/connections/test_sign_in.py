"""What a server says to a credential, told apart by what can be done about it; over real sockets."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from daemon_core.connections.client import ServerClient
from daemon_core.connections.sign_in import SignInError, check, check_form
from daemon_core.connections.timing import Timeouts
from daemon_core.settings.proxies import is_loopback, proxy_for
from tests.support.fake_server import (
    TOKEN,
    FakeServer,
    Fault,
    Hang,
    ResetBefore,
    Says,
    Status,
    Truncated,
    html_502,
    refuse,
)

FAST = Timeouts(renew_s=0.5, workspaces_s=0.5, connect_s=0.4)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        made.add_workspace("Team")
        yield made


async def refusal(url: str, token: str = TOKEN) -> SignInError:
    async with ServerClient(url, token, timeouts=FAST) as client:
        with pytest.raises(SignInError) as caught:
            await check(client)
    assert token not in str(caught.value)
    return caught.value


async def test_a_good_credential_lists_its_workspaces(server: FakeServer) -> None:
    async with ServerClient(server.url, TOKEN, timeouts=FAST) as client:
        found = await check(client)
    assert [workspace.name for workspace in found.workspaces] == ["Team"]
    assert [request.route for request in server.requests] == ["renew", "workspaces"]


@pytest.mark.parametrize(
    "fault", [refuse(400, "only personal access tokens can be renewed"), refuse(404, "x")]
)
async def test_a_server_need_not_renew(server: FakeServer, fault: Fault) -> None:
    server.script("renew", fault)
    async with ServerClient(server.url, TOKEN, timeouts=FAST) as client:
        assert (await check(client)).expires_at == ""


@pytest.mark.parametrize(
    ("route", "fault", "code"),
    [
        ("renew", refuse(401, "token is no longer valid"), "token_refused"),
        ("workspaces", refuse(401, "invalid token"), "token_refused"),
        ("renew", refuse(403, "account disabled"), "account"),
        ("workspaces", refuse(403, "account disabled"), "account"),
        ("workspaces", Status(404, "404 page not found", "text/plain"), "not_a_server"),
        ("workspaces", Status(405, "", "text/plain"), "not_a_server"),
        ("renew", Says("<html>portal</html>", "text/html"), "not_a_server"),
        ("workspaces", Says({"not": "a list"}), "not_a_server"),
        ("workspaces", Truncated(), "not_a_server"),
        ("renew", Status(302, "", headers=(("Location", "https://portal"),)), "not_a_server"),
        ("renew", html_502(), "error"),
        ("workspaces", refuse(500, "store"), "error"),
        ("renew", Hang(), "no_answer"),
        ("workspaces", Hang(), "no_answer"),
        ("renew", ResetBefore(), "no_answer"),
    ],
)
async def test_every_other_answer_has_its_code(
    server: FakeServer, route: str, fault: Fault, code: str
) -> None:
    server.script(route, fault)
    assert (await refusal(server.url)).code == code


async def test_how_there_was_no_answer_is_told(server: FakeServer) -> None:
    server.always("renew", Hang())
    assert (await refusal(server.url)).params["reason"] == "timeout"
    await server.stop()
    assert (await refusal(server.url)).params["reason"] == "refused"
    assert (await refusal("http://nowhere.invalid")).params["reason"] == "name_not_resolved"


def _write_certificate(certificate: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_a_certificate_that_nobody_vouches_for_is_no_secure_connection(tmp_path: Path) -> None:
    _write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    error = await refusal(f"https://127.0.0.1:{port}")
    assert (error.code, error.params["reason"]) == ("no_answer", "tls")
    error = await refusal(f"http://127.0.0.1:{port}")  # plain HTTP into TLS
    assert error.code in ("no_answer", "not_a_server")
    await runner.cleanup()


def test_tokens_for_something_else_are_told_without_asking() -> None:
    check_form(TOKEN)
    check_form("eyJhbGciOi.J9.x")
    for token, code in (("mat_x", "token_kind"), ("mdt_x", "token_kind"), ("mul_ü", "token_unfit"),
                        ("two words", "token_unfit"), ("nul\0", "token_unfit")):  # fmt: skip
        with pytest.raises(SignInError) as caught:
            check_form(token)
        assert caught.value.code == code


def test_the_proxy_is_the_environments() -> None:
    environ = {"https_proxy": "http://proxy:3128", "no_proxy": "intern.example,.lan"}
    assert proxy_for("https://api.example.org", environ) == "http://proxy:3128"
    assert proxy_for("http://api.example.org", environ) is None
    assert proxy_for("https://intern.example", environ) is None
    assert proxy_for("https://box.lan:8443", environ) is None
    assert proxy_for("https://localhost:8443", environ) is None
    assert proxy_for("https://a", {"HTTPS_PROXY": "socks5://proxy"}) is None
    assert proxy_for("https://a", {"ALL_PROXY": "http://proxy:1"}) == "http://proxy:1"


def test_what_is_on_this_machine() -> None:
    assert all(
        map(is_loopback, ("http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "http://127.9.9.9"))
    )
    assert not any(map(is_loopback, ("http://10.0.0.1", "https://127.example.org.evil", "https://host")))
