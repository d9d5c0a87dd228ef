"""The registry of providers: what comes with Ostler, the user's own files, what may be wrong with those."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon_core.agents.families import families
from daemon_core.runtimes import provider_reading, providers
from daemon_core.runtimes.providers import Registry, builtin, load

GOOD = """\
name = "Mine"
executables = ["my-agent"]
min_version = "1.2.3"
family = "claude-stream-json"

[brief]
way = "file"
file = "AGENTS.md"

[drive]
args = ["--in", "{work_dir}"]
model = "--model"

[drive.blocked]
"--in" = "1"
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def only_mistake(found: Registry) -> tuple[str, int | None, str, str]:
    (mistake,) = found.mistakes
    return Path(mistake.file).name, mistake.line, mistake.what, mistake.hint


# --- what comes with Ostler ----------------------------------------------------------------------


def test_every_provider_is_there_and_sound() -> None:
    known = builtin()
    assert set(known.ids) >= {
        "claude", "codex", "opencode", "gemini", "qwen", "codebuddy", "copilot", "cursor", "antigravity",
        "deveco", "openclaw", "pi", "omp", "hermes", "kimi", "kiro", "reasonix", "qoder", "qoderclicn",
        "traecli", "grok", "qwenpaw", "mcode", "dim", "dsh", "codex-acp", "claude-code-acp", "shell",
    }  # fmt: skip
    assert len(set(known.ids)) == len(known.ids)
    assert not known.mistakes
    for provider in known:
        # By the rules for the user's own.
        assert list(provider_reading.problems(provider, families())) == [], provider.id


def test_those_that_nobody_has_run_are_marked() -> None:
    tried = {provider.id for provider in builtin() if provider.verified}
    assert tried == {"claude", "codex", "opencode", "gemini", "qwen", "shell"}
    assert builtin().ids[: len(tried)] == ["claude", "codex", "opencode", "gemini", "qwen", "shell"]


def test_a_file_is_named_as_its_provider() -> None:
    assert {path.stem for path in providers.FILES.glob("*.toml")} == set(builtin().ids)


def test_reading_all_of_them_takes_a_moment_only() -> None:
    def once() -> float:
        builtin.cache_clear()
        began = time.process_time()
        builtin()
        return time.process_time() - began

    # A third of this on a quiet machine.
    assert min(once() for _ in range(5)) < 0.05


# --- the user's own ------------------------------------------------------------------------------


def test_a_file_is_all_it_takes(tmp_path: Path) -> None:
    write(tmp_path, "mine.toml", GOOD)
    write(tmp_path, "notes.txt", "this is no provider")
    found = load(tmp_path)

    assert found.mistakes == ()
    mine = found.get("mine")
    assert mine is not None
    assert (mine.family, mine.drive.args, mine.drive.blocked) == (
        "claude-stream-json",
        ("--in", "{work_dir}"),
        {"--in": "1"},
    )
    assert mine.layout().brief_file == "AGENTS.md"
    assert found.ids == [*builtin().ids, "mine"]


def test_one_that_is_there_can_be_built_upon(tmp_path: Path) -> None:
    write(
        tmp_path,
        "work.toml",
        'extends = "claude"\nname = "Claude at work"\nexecutables = ["claude-work"]\n'
        '[drive.env]\nCLAUDE_CONFIG_DIR = "/home/me/work"\n',
    )
    work, claude = load(tmp_path).get("work"), builtin().get("claude")

    assert work is not None
    assert claude is not None
    assert work.drive.env == {"CLAUDE_CONFIG_DIR": "/home/me/work"}
    assert (work.drive.resume, work.brief, work.min_version) == ("--resume", claude.brief, "2.0.0")
    assert work.verified == ()


def test_no_directory_is_no_mistake(tmp_path: Path) -> None:
    assert load(tmp_path / "absent") is builtin()
    assert load(None) is builtin()


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "hint"),
    [
        ('name = "Mine"', 'name = "Mine', 1, "not valid TOML", ""),
        ("[drive]", "[drive", 10, "not valid TOML", ""),
        ("min_version", "min_versoin", 3, "no key min_versoin", "Did you mean min_version?"),
        ('model = "--model"', 'modle = "--model"', 12, "no key modle", "Did you mean model?"),
        ('way = "file"', 'way = "letter"', 7, "brief.way", ""),
        ('executables = ["my-agent"]', 'executables = "my-agent"', 2, "executables", ""),
        ('executables = ["my-agent"]', "executables = []", 2, "no program", ""),
        ('executables = ["my-agent"]', 'executables = ["bin/agent"]', 2, "nor an absolute path", ""),
        ('"1.2.3"', '"1.2"', 3, "no version", "1.2.3"),
        ("claude-stream-json", "claude-stream", 4, "no protocol family", "Did you mean claude-stream-json?"),
        ("{work_dir}", "{workdir}", 11, "no placeholder {workdir}", "{work_dir}"),
        ('"--in" = "1"', '"--in" = "2"', 15, "no number of values", '"?"'),
        ('"AGENTS.md"', '"../AGENTS.md"', 8, "no path inside", ""),
        ('name = "Mine"', 'id = "Mine Own"\nname = "x"', 1, "cannot be an id", ""),
        ('name = "Mine"', 'extends = "cloude"', 1, "no provider 'cloude'", "Did you mean claude?"),
        ('name = "Mine"\n', "", 1, "name is missing", ""),
        ('name = "Mine"', 'id = "codex"\nname = "x"', 1, "Ostler's own", 'extends = "codex"'),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_others_load(
    tmp_path: Path, old: str, new: str, line: int, what: str, hint: str
) -> None:
    write(tmp_path, "a.toml", GOOD)
    assert old in GOOD
    write(tmp_path, "b.toml", GOOD.replace(old, new, 1))
    write(tmp_path, "c.toml", GOOD)
    found = load(tmp_path)

    name, at, told, hinted = only_mistake(found)
    assert (name, at) == ("b.toml", line), told
    assert what in told
    assert hint in hinted
    assert found.ids == [*builtin().ids, "a", "c"]


def test_two_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", 'id = "twin"\n' + GOOD)
    write(tmp_path, "b.toml", GOOD.replace("[brief]", 'id = "twin"\n[brief]'))
    name, line, what, _ = only_mistake(load(tmp_path))

    assert (name, line) == ("b.toml", 6)
    assert "a.toml" in what


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    write(tmp_path, "good.toml", GOOD)
    (tmp_path / "large.toml").write_text("# " + "x" * provider_reading.FILE_LIMIT_BYTES)
    (tmp_path / "latin.toml").write_bytes(b'name = "Mine"\n# caf\xe9\n')
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "gone.toml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.toml")
    found = load(tmp_path)

    told = {Path(mistake.file).name: (mistake.line, mistake.what) for mistake in found.mistakes}
    assert told.keys() == {"large.toml", "latin.toml", "folder.toml", "gone.toml", "pipe.toml"}
    assert told["latin.toml"] == (2, "it is not UTF-8")
    assert "too large" in told["large.toml"][1]
    assert found.get("good") is not None


def test_a_directory_that_cannot_be_listed(tmp_path: Path) -> None:
    place = write(tmp_path, "providers", "a file in the directory's place")
    assert load(place) is builtin()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_mistakes_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = GOOD.encode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 20)))
        new = data.draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [b'"', b"\n", b"[", b"]", b"{", b"=", b"[[x]]\n", b"1", b"true", b"id = 1\n"]
                ),
            )
        )
        content = content[:begin] + new + content[end:]
    write(tmp_path, "good.toml", GOOD)
    (tmp_path / "damaged.toml").write_bytes(content)
    found = load(tmp_path)

    assert found.get("good") is not None
    assert len(found.mistakes) + len(found.providers) == len(builtin().providers) + 2
    for mistake in found.mistakes:
        assert mistake.what
        assert mistake.line is None or 1 <= mistake.line <= content.count(b"\n") + 1
