"""Addresses of repositories: what is refused, what is taken out, what things are called on disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_core.workdirs.repository_errors import RepositoryInputError, scrubbed
from daemon_core.workdirs.repository_urls import parse_url


@pytest.mark.parametrize(
    ("given_url", "cache", "name"),
    [
        ("https://GitHub.com/org/repo.git", "github.com+org+repo.git", "repo"),
        ("https://github.com/org/repo", "github.com+org+repo.git", "repo"),
        ("https://github.com/org/repo/", "github.com+org+repo.git", "repo"),
        ("https://host/org/repo/.git", "host+org+repo.git", "repo"),
        ("git@github.com:org/repo.git", "github.com+org+repo.git", "repo"),
        ("ssh://git@host:2222/a/b/c.git", "host%3A2222+a+b+c.git", "c"),
        ("https://host:8443/a", "host%3A8443+a.git", "a"),
        ("https://[::1]:8443/a", "%5B%3A%3A1%5D%3A8443+a.git", "a"),
        ("https://host/a+b/c%20d", "host+a%2Bb+c%20d.git", "c-d"),
        ("https://host/org/.github", "host+org+.github.git", "_.github"),
        ("https://host/org/-x", "host+org+-x.git", "_-x"),
    ],
)
def test_names_on_disk(given_url: str, cache: str, name: str) -> None:
    url = parse_url(given_url, allow_local=False)
    assert (url.cache_name, url.name) == (cache, name)


@pytest.mark.parametrize(
    ("given_url", "text"),
    [
        ("https://user:pass@host/a/b", "https://host/a/b"),
        ("https://ghp_0123456789abcdef0123@host/a/b", "https://host/a/b"),
        ("ssh://git:pass@host/a/b", "ssh://git@host/a/b"),
        ("ssh://git@host/a/b", "ssh://git@host/a/b"),
    ],
)
def test_credentials_are_taken_out(given_url: str, text: str) -> None:
    url = parse_url(given_url, allow_local=False)
    assert url.text == text
    assert url.had_credentials == ("pass" in given_url or "ghp_" in given_url)


@pytest.mark.parametrize(
    ("given_url", "code"),
    [
        ("", "bad_url"),
        ("--upload-pack=touch /tmp/x", "bad_url"),
        ("--upload-pack=touch", "unsafe_url"),
        ("-oProxyCommand=x", "unsafe_url"),
        ("ext::sh", "unsafe_url"),
        ("ext::sh%20-c%20touch", "unsafe_url"),
        ("fd::17/foo", "unsafe_url"),
        ("ftp://host/a", "unsafe_url"),
        ("javascript://host/a", "unsafe_url"),
        ("ssh://-oProxyCommand=touch/a", "bad_url"),
        ("-host:path", "unsafe_url"),
        ("host:-path", "unsafe_url"),
        ("git@-host:path", "unsafe_url"),
        ("https://host/../../etc", "bad_url"),
        ("https://host/a/%2e%2e/b", "bad_url"),
        ("https://host/a/%2Fetc", "bad_url"),
        ("https://host/..", "bad_url"),
        ("https://host/", "bad_url"),
        ("https://host", "bad_url"),
        ("https:///a/b", "bad_url"),
        ("https://host/a?x=1", "bad_url"),
        ("https://host/a b", "bad_url"),
        ("https://host/a\nb", "bad_url"),
        ("https://host:99999/a", "bad_url"),
        ("relative/path", "bad_url"),
        ("/etc", "local_refused"),
        ("file:///etc", "local_refused"),
        ("FILE:///etc", "local_refused"),
    ],
)
def test_refused(given_url: str, code: str) -> None:
    with pytest.raises(RepositoryInputError) as caught:
        parse_url(given_url, allow_local=False)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "given_url", ["/srv/my repo/x.git", "file:///srv/my%20repo/x.git", "/srv/a/../my repo/x"]
)
def test_a_path_that_the_user_gave(given_url: str) -> None:
    url = parse_url(given_url, allow_local=True)
    assert url.local
    assert url.name == "x"
    assert url.key == "_local/srv/my repo/x"
    assert url.text.startswith("file:///srv/my%20repo/x")


def test_a_file_address_of_another_machine_is_refused() -> None:
    with pytest.raises(RepositoryInputError):
        parse_url("file://server/share", allow_local=True)


@given(st.text(max_size=60))
def test_whatever_comes_no_name_leaves_its_directory(text: str) -> None:
    for prefix in ("", "https://host/", "git@host:", "ssh://host/a/", "/"):
        try:
            url = parse_url(prefix + text, allow_local=True)
        except RepositoryInputError:
            continue
        for name in (url.name, url.cache_name):
            assert "/" not in name
            assert "\0" not in name
            assert name not in ("", ".", "..", ".git")
            assert not name.startswith("-")
        assert not url.text.startswith("-")
        assert "::" not in url.text.partition("/")[0]
        assert len(url.cache_name.encode()) < 250


def test_different_paths_have_different_caches() -> None:
    names = {
        parse_url(f"https://h/{path}", allow_local=False).cache_name
        for path in ("a/b", "a+b", "a%2Bb/", "a%252Bb", "a/b.x", "a" * 300, "a" * 301)
    }
    assert len(names) == 6  # a+b and a%2Bb are one


def test_scrubbing() -> None:
    said = (
        "fatal: unable to access 'https://me:p@host/x/': Authorization: Basic abcdef ghp_0123456789abcdef0123"
    )
    assert (
        scrubbed(said)
        == "fatal: unable to access 'https://host/x/': Authorization: Basic [removed] [removed]"
    )


def test_what_git_says_is_looked_through_in_no_time() -> None:
    assert scrubbed("a" * 65_536)
    assert scrubbed("https://me:secret@host/x") == "https://host/x"
