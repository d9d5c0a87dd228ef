"""What is in a payload and in the packages around it, as far as that can be seen without installing them."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from building import contents, elf, manifest, stamping
from building.installers import icons, layout, linux, macos, making, repacking, windows
from daemon_core.updates.versions import is_whole
from releasing import archives
from tests.packaging.conftest import Made, Stamp, needs_root

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("dpkg")]

PROGRAMS = {"ostler", "ostlerd", "ostler-desktop", "ostler-helper", "ostler-shim"}


# --- the payload -----------------------------------------------------------------------------------


def test_a_payload_is_exactly_what_its_manifest_says(bundle: layout.Source) -> None:
    archives.check(bundle.payload)
    assert is_whole(str(bundle.payload), bundle.version)
    about = manifest.read_payload(bundle.payload)
    assert about["platform"] == "linux-x86_64"
    assert about["api"] == [1, 1]
    assert about["journal"] > 0
    assert {
        path.name for path in bundle.payload.iterdir() if os.access(path, os.X_OK) and path.is_file()
    } == PROGRAMS


def test_what_was_on_the_builders_machine_and_is_not_needed_stays_there(bundle: layout.Source) -> None:
    inside = bundle.payload / "_internal"
    top = {path.name.partition(".")[0] for path in inside.iterdir()}
    assert not top & {"pytest", "hypothesis", "mypy", "pydantic", "setuptools", "pip", "bsdiff4", "tests"}
    assert {"daemon_core", "desktop", "aiohttp", "keyring", "tuf"} <= top
    assert not list(inside.rglob("*gtk*")), "Qt's theme for GTK brings half of GTK along"
    assert {path.name for path in inside.rglob("*.qm")} == set(contents.QT_TRANSLATIONS)
    assert (inside / "daemon_core/runtimes/provider_files/claude.toml").exists()
    assert (inside / "desktop/resources/glyphs/settings.svg").exists()
    assert list(inside.glob("aiohttp/_http_parser*.so")), "with its parser in C"


def test_no_library_is_looked_for_in_the_builders_directories(bundle: layout.Source) -> None:
    for place in (bundle.payload, bundle.launcher):
        for path in place.rglob("*.so*"):
            said = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout
            for found in re.findall(r"^\s+R(?:UN)?PATH\s+(\S+)$", said, re.MULTILINE):
                assert all(part.startswith("$ORIGIN") for part in found.split(":")), path


def test_a_search_path_is_replaced_in_place(bundle: layout.Source, tmp_path: Path) -> None:
    library = tmp_path / "lib" / "x.so"
    library.parent.mkdir()
    whole = bytearray((bundle.payload / "_internal/PySide6/QtCore.abi3.so").read_bytes())
    found = elf.search_path(whole)
    assert found is not None
    start, path = found
    whole[start : start + len(path)] = b"/builder".ljust(len(path), b"x")
    library.write_bytes(whole)
    elf.make_relative(library, tmp_path)
    said = subprocess.run(["objdump", "-p", library], capture_output=True, text=True, check=True).stdout
    assert re.search(r"PATH\s+\$ORIGIN/\.\.$", said, re.MULTILINE)
    before = library.read_bytes()
    elf.make_relative(library, tmp_path)
    assert library.read_bytes() == before, "what is relative stays"
    text = tmp_path / "text.so.txt"
    text.write_text("not a library")
    elf.make_relative(text, tmp_path)
    assert text.read_text() == "not a library"


def test_everything_bundled_is_named_with_its_licence(bundle: layout.Source) -> None:
    bill = json.loads((bundle.payload / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {part["name"] for part in bill["components"]}
    assert {"CPython", "PySide6_Essentials", "aiohttp", "cryptography", "tuf"} <= named
    assert named == {path.name for path in (bundle.payload / "licences").iterdir() if path.is_dir()}
    for path in (bundle.payload / "licences").iterdir():
        texts = [path] if path.is_file() else list(path.iterdir())
        assert texts, path
        assert all(text.stat().st_size for text in texts), path
    # Nothing that came as a package may be missing from it.
    inside = bundle.payload / "_internal"
    for package in (
        "aiohttp",
        "attr",
        "click",
        "jeepney",
        "msgspec",
        "psutil",
        "secretstorage",
        "tomlkit",
        "yaml",
    ):
        assert (inside / package).exists(), package
    assert any("LGPL" in text.name for text in (bundle.payload / "licences/PySide6_Essentials").iterdir())


def test_the_helpers_of_a_payload_answer(bundle: layout.Source, tmp_path: Path) -> None:
    helper = bundle.payload / "ostler-helper"
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.defpath,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={tmp_path}/none",
    }
    question = {"verb": "get", "service": "Ostler tests", "account": "nobody", "ask": False}

    def ask(what: str, said: object) -> dict[str, object]:
        done = subprocess.run(
            [helper, what], input=json.dumps(said).encode(), env=environ, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    assert ask("keyring", question)["code"] in ("none", "locked"), "its backends are found, and none is there"
    answer = ask("update", {"root": str(tmp_path / "root.json"), "metadata_dir": str(tmp_path / "m")})
    assert answer["code"] == "trust_missing", "python-tuf is there"
    assert subprocess.run([helper], env=environ, capture_output=True, check=False).returncode == 1


def test_one_build_is_many_versions(bundle: layout.Source, stamped: Stamp) -> None:
    for version, broken in (("98.0.1", None), ("98.0.2", "crash")):
        made = stamped(version, broken)
        archives.check(made)
        assert is_whole(str(made), version)
        said = subprocess.run([made / "ostler", "--json", "version"], capture_output=True, check=True).stdout
        assert json.loads(said)["version"] == version
    done = subprocess.run([made / "ostlerd"], capture_output=True, check=False, env={"HOME": "/nowhere"})
    assert done.returncode == 1
    assert b"it crashes at once" in done.stderr
    assert {"crash", "hang", "late-crash", "journal", "no-health"} == set(stamping.BREAKS)
    archives.check(bundle.payload)  # the original is as it was


# --- packages --------------------------------------------------------------------------------------


def test_a_package_names_all_that_the_payload_needs_of_a_system(bundle: layout.Source) -> None:
    wanted, glibc = linux.needed(bundle)
    assert wanted <= linux.LIBRARIES.keys()
    assert {"libEGL.so.1", "libxcb-cursor.so.0", "libdbus-1.so.3"} <= wanted
    assert f"libc6 (>= {glibc})" in linux.dependencies(bundle, "deb")
    assert "libEGL.so.1()(64bit)" in linux.dependencies(bundle, "rpm")
    assert "xcb-util-cursor" in linux.dependencies(bundle, "archlinux")


def test_the_rpm_holds_what_it_should(bundle: layout.Source, installers: Made) -> None:
    made = installers.of(".rpm")
    listed = _listed("rpm2cpio", made)
    _check_files({f"/{name.removeprefix('./').removeprefix('/')}" for name in listed}, bundle)
    raw = made.read_bytes()
    for part in (b"libEGL.so.1()(64bit)", b'[ "$1" = 0 ]', b"/proc/[0-9]*"):
        assert part in raw, part


def test_the_arch_package_holds_what_it_should(bundle: layout.Source, installers: Made) -> None:
    made = installers.of(".pkg.tar.zst")
    _check_files({f"/{name}" for name in _bsdtar("-tf", made).splitlines()}, bundle)
    about = _bsdtar("-xOf", made, ".PKGINFO")
    assert "depend = xcb-util-cursor" in about
    assert f"pkgver = {bundle.version}-1" in about


@pytest.fixture
def small(tmp_path: Path) -> layout.Source:
    """A stand-in for a payload, so that packages are made as small as for a release in no time."""
    return _stand_in(tmp_path, "linux-x86_64")


@pytest.mark.parametrize("kind", linux.KINDS)
def test_a_package_for_release_is_smaller_and_the_same(
    kind: str, small: layout.Source, tmp_path: Path
) -> None:
    quick = linux.package(small, kind, tmp_path / "quick", fast=True)
    made = linux.package(small, kind, tmp_path / "made")
    assert made.stat().st_size < quick.stat().st_size
    if kind == "deb":
        for question in ("--info", "--contents"):
            asked = [
                subprocess.run(["dpkg-deb", question, path], capture_output=True, text=True, check=True)
                for path in (quick, made)
            ]
            told = [[line for line in each.stdout.splitlines() if " size " not in line] for each in asked]
            assert told[0] == told[1]
    elif kind == "rpm":
        assert _listed("rpm2cpio", quick) == _listed("rpm2cpio", made)
    else:
        assert made.name.endswith(".pkg.tar.xz")
        assert _bsdtar("-tf", quick) == _bsdtar("-tf", made)
        assert _bsdtar("-xOf", quick, ".PKGINFO") == _bsdtar("-xOf", made, ".PKGINFO")
        assert ".MTREE" in _bsdtar("-tf", made).split()


@pytest.mark.parametrize("kind", [*linux.KINDS, linux.TARBALL, "windows"])
def test_two_builds_give_the_same_bytes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere, later, and by somebody with another umask."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = []
    for place, umask in ((tmp_path / "one", 0o022), (tmp_path / "two" / "further in", 0o077)):
        before = os.umask(umask)
        try:
            if kind == "windows":
                made.append(
                    windows.compile_installer(_stand_in(place, "windows-x86_64", ".exe"), place / "out")
                )
            elif kind == linux.TARBALL:
                made.append(linux.tarball(_stand_in(place, "linux-x86_64"), place / "out"))
            else:
                made.append(linux.package(_stand_in(place, "linux-x86_64"), kind, place / "out"))
        finally:
            os.umask(before)
        for path in place.rglob("*"):
            os.utime(path, (1.0, 1.0), follow_symlinks=False)
    assert made[0].name == made[1].name
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize(
    ("program", "lost"),
    [("bsdtar", {"archlinux"}), ("nfpm", set(linux.KINDS)), ("objdump", {*linux.KINDS, linux.TARBALL})],
)
def test_what_a_missing_program_is_needed_for_is_said_and_the_rest_is_made(
    program: str, lost: set[str], small: layout.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bsdtar", "objdump"):
        found = shutil.which(name)
        assert found is not None
        if name != program:
            (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    if program == "nfpm":
        monkeypatch.setattr(linux, "_NFPM", tmp_path / "nfpm")
    made, could_not = making.make_all(small, tmp_path / "out")
    assert len(made) == len(linux.KINDS) + 1 - len(lost)
    said = [line for line in could_not if program in line]
    assert {line.partition(":")[0] for line in said} == {linux.WORDS[kind] for kind in lost}
    assert all("apt-get install" in line or "make setup-dev" in line for line in said), said


@needs_root
@pytest.mark.root
def test_rpm_finds_its_package_whole_and_takes_all_of_it_away_again(
    small: layout.Source, tmp_path: Path
) -> None:
    made = linux.package(small, "rpm", tmp_path / "out")
    root = tmp_path / "system"
    root.mkdir()

    def rpm(*arguments: str | Path) -> str:
        done = subprocess.run(["rpm", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    checked = rpm("--checksig", "--verbose", made)
    assert len(re.findall(r"digest: OK$", checked, re.MULTILINE)) >= 3, checked
    rpm("--root", root, "--nodeps", "--noscripts", "--install", made)
    rpm("--root", root, "--nodeps", "--verify", "ostler")
    assert (root / "usr/lib/ostler/payload" / small.version / "ostlerd").exists()
    rpm("--root", root, "--noscripts", "--erase", "ostler")
    assert not [path for path in (root / "usr").rglob("*") if "ostler" in path.name]


def test_what_an_rpm_is_not_is_not_packed_anew(tmp_path: Path) -> None:
    other = tmp_path / "other.rpm"
    other.write_bytes(bytes(500))
    with pytest.raises(ValueError, match="no header"):
        repacking.repack(other, "rpm", "linux-x86_64")
    assert other.read_bytes() == bytes(500)


def _bsdtar(*arguments: str | Path) -> str:
    return subprocess.run(["bsdtar", *arguments], capture_output=True, text=True, check=True).stdout


def _listed(unpack: str, package: Path) -> list[str]:
    """The files of an archive that another program takes out of a package."""
    with subprocess.Popen([unpack, package], stdout=subprocess.PIPE) as unpacking:
        found = subprocess.run(
            ["bsdtar", "-tf", "-"], stdin=unpacking.stdout, capture_output=True, text=True, check=True
        )
    assert unpacking.returncode == 0
    return found.stdout.splitlines()


def _check_files(listed: set[str], bundle: layout.Source) -> None:
    wanted = {
        "/usr/bin/ostler", "/usr/bin/ostlerd", "/usr/bin/ostler-desktop", "/usr/lib/ostler/launcher/ostler",
        f"/usr/lib/ostler/payload/{bundle.version}/ostlerd", "/usr/lib/ostler/install.json",
        f"/usr/lib/ostler/payload/{bundle.version}/manifest.json", "/usr/lib/systemd/user/ostler.service",
        "/usr/share/applications/ostler.desktop", "/usr/share/icons/hicolor/scalable/apps/ostler.svg",
        "/usr/share/icons/hicolor/256x256/apps/ostler.png", "/usr/share/man/man1/ostler.1.gz",
        "/usr/share/metainfo/org.ostler.desktop.metainfo.xml",
    }  # fmt: skip
    assert not wanted - listed
    assert not [name for name in listed if "/autostart/" in name], "off until chosen"


def test_an_installer_says_what_it_is_and_where_updates_come_from(
    bundle: layout.Source, tmp_path: Path
) -> None:
    root = tmp_path / "root.json"
    root.write_text("{}")
    told = layout.Source(bundle.payload, bundle.launcher, url="https://updates.example/m", root=root)
    layout.lay_out(told, "deb", tmp_path / "out")
    assert json.loads((tmp_path / "out/install.json").read_text()) == {
        "format": 1, "version": bundle.version, "kind": "deb", "seed": f"payload/{bundle.version}",
        "channel": "stable", "url": "https://updates.example/m",
    }  # fmt: skip
    assert (tmp_path / "out/root.json").read_text() == "{}"
    assert not (tmp_path / "out/launcher/payload.json").exists()


def test_the_files_for_desktops_and_systemd_are_what_these_expect(tmp_path: Path) -> None:
    data = linux.DATA
    for tool, *arguments in (["desktop-file-validate", str(data / "ostler.desktop")],):
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    unit = (data / "ostler.service").read_text()
    assert {"KillMode=process", "Restart=on-failure", "OOMPolicy=continue"} <= set(unit.splitlines())
    for script in data.glob("*.sh"):
        checked = linux._script(script.name).replace("@IF_REMOVED@", "true")
        assert not re.search(r"^@", checked, re.MULTILINE), script
        subprocess.run(["sh", "-n"], input=checked.encode(), check=True)


def test_the_icon_is_drawn_in_every_form(tmp_path: Path) -> None:
    icons.draw(tmp_path)
    for size in icons.PNG_SIZES:
        head = (tmp_path / f"hicolor/{size}x{size}/apps/ostler.png").read_bytes()[:24]
        assert struct.unpack(">II", head[16:24]) == (size, size)
    assert "<svg" in (tmp_path / "hicolor/scalable/apps/ostler.svg").read_text()
    assert (tmp_path / "ostler.ico").read_bytes()[:4] == b"\0\0\1\0"
    apple = (tmp_path / "ostler.icns").read_bytes()
    assert struct.unpack(">4sI", apple[:8]) == (b"icns", len(apple))


# --- other systems ---------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> layout.Source:
    """A small stand-in for a payload and a launcher of another system."""
    return _stand_in(tmp_path, "windows-x86_64", ".exe")


def _stand_in(place: Path, platform: str, ending: str = "") -> layout.Source:
    payload, launcher = place / "payload", place / "launcher"
    for directory, names in ((payload, ("ostler", "ostlerd")), (launcher, ("ostler", "ostler-desktop"))):
        (directory / "_internal").mkdir(parents=True)
        for name in (*(f"{name}{ending}" for name in names), "_internal/python.dll"):
            (directory / name).write_bytes(b"stand-in " * 500)
            (directory / name).chmod(0o755)
    manifest.write_payload(payload, {"version": "1.2.3", "platform": platform})
    manifest.write_manifest(payload)
    return layout.Source(payload, launcher)


def test_the_installer_for_windows_compiles_around_a_stand_in(foreign: layout.Source, tmp_path: Path) -> None:
    made = windows.compile_installer(foreign, tmp_path / "out")
    raw = made.read_bytes()
    assert raw[:2] == b"MZ"
    assert b"NullsoftInst" in raw
    assert made.name == "ostler-1.2.3-windows-x86_64-setup.exe"


def test_the_bundle_for_macos_is_laid_out(foreign: layout.Source, tmp_path: Path) -> None:
    app = macos.bundle(foreign, tmp_path / "out")
    with open(app / "Contents/Info.plist", "rb") as file:
        about = plistlib.load(file)
    assert about["LSUIElement"] is True
    assert os.access(app / "Contents/MacOS" / about["CFBundleExecutable"], os.X_OK)
    assert (app / "Contents/Resources" / f"{about['CFBundleIconFile']}.icns").exists()
    assert (app / "Contents/Resources/ostler/launcher").is_dir()
    subprocess.run(["sh", "-n", macos.DATA / "finish"], check=True)
    with open(macos.DATA / "entitlements.plist", "rb") as file:
        assert plistlib.load(file)


def test_a_release_is_built_and_what_cannot_be_made_here_is_said(
    bundle: layout.Source, installers: Made, tmp_path: Path
) -> None:
    made = {line.partition(":")[0] for line in installers.said if line.endswith(" MB")}
    assert made == {path.name for path in installers.files}
    not_made = [line for line in installers.said if line.startswith("not made here: ")]
    assert len(not_made) == 3
    for what in ("Windows", "Mac", "updates"):
        assert [line for line in not_made if what in line], what
    package = archives.opened(installers.of(f"{bundle.version}-{bundle.platform}.tar.xz"), tmp_path)
    assert (package.version, package.platform) == (bundle.version, bundle.platform)
    with tarfile.open(installers.of("-setup.tar")) as tar:
        names = tar.getnames()
    assert f"ostler-{bundle.version}/install.sh" in names
    assert f"ostler-{bundle.version}/lib/uninstall.sh" in names


@pytest.mark.parametrize("given", ["relative", "~/tilde", "absolute"])
def test_uninstalling_deletes_the_data_that_is_meant_wherever_it_is_called_from(
    given: str, tmp_path: Path
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    meant = {"relative": here / "my ostler", "~/tilde": home / "tilde", "absolute": tmp_path / "own"}[given]
    called = {"relative": "my ostler", "~/tilde": "~/tilde", "absolute": str(meant)}[given]
    (meant / "data").mkdir(parents=True)
    (meant / "state").mkdir()
    (meant / "state" / "daemon.lock").touch()
    done = _uninstalled(tmp_path, home, here, called)
    assert "Your data was deleted" in done.stdout, done.stderr
    assert not meant.exists()


@pytest.mark.parametrize("what", ["the user's own home", "a directory without a daemon"])
def test_uninstalling_deletes_nothing_that_is_not_ostlers_alone(what: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    own = home if what == "the user's own home" else tmp_path / "elsewhere"
    (own / "data").mkdir(parents=True)
    (own / "data" / "letters").touch()
    if own == home:
        (own / "state").mkdir()
        (own / "state" / "daemon.lock").touch()
    done = _uninstalled(tmp_path, home, tmp_path / "here", str(own))
    assert (done.returncode, "is not for Ostler alone" in done.stderr) == (1, True)
    assert (own / "data" / "letters").exists()
    assert (tmp_path / "installed/lib/ostler/uninstall.sh").exists(), "nothing was done yet"


def _uninstalled(place: Path, home: Path, here: Path, ostler_home: str) -> subprocess.CompletedProcess[str]:
    """Run the script of an installation that has nothing else, with ``--remove-data``."""
    installed = place / "installed" / "lib" / "ostler"
    (installed / "launcher").mkdir(parents=True)
    (installed / "launcher" / "ostler").touch(0o755)
    (installed / "install.json").touch()
    (installed / "uninstall.sh").write_text(linux._script("uninstall.sh"))
    for path in (home, here):
        path.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        ["sh", installed / "uninstall.sh", "--remove-data"], cwd=here, capture_output=True, text=True,
        check=False, env={"HOME": str(home), "PATH": os.defpath, "OSTLER_HOME": ostler_home},
    )  # fmt: skip
