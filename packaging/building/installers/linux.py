"""Packages for Linux (.deb, .rpm, Arch) made by nfpm, and the archive for a user without root."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from building import places
from building.installers import icons, layout, repacking

KINDS: Final = ("deb", "rpm", "archlinux")
TARBALL: Final = "tarball"
WORDS: Final = {
    "deb": "the .deb",
    "rpm": "the .rpm",
    "archlinux": "the package for Arch",
    TARBALL: "the archive with an install script",
}
_WHERE_FROM: Final = {
    "bsdtar": "on Debian: apt-get install libarchive-tools",
    "nfpm": "`make setup-dev` brings it",
    "objdump": "on Debian: apt-get install binutils",
}
"""The programs that are needed, and how to get them."""
DATA: Final = places.PACKAGING / "linux"
LIBRARIES: Final = {
    "libc.so.6": ("libc6 (>= {glibc})", "glibc"),
    "libstdc++.so.6": ("libstdc++6 (>= 11)", "gcc-libs"),
    "libgcc_s.so.1": ("libgcc-s1", "gcc-libs"),
    "libglib-2.0.so.0": ("libglib2.0-0 | libglib2.0-0t64", "glib2"),
    "libEGL.so.1": ("libegl1", "libglvnd"),
    "libGL.so.1": ("libgl1", "libglvnd"),
    "libfontconfig.so.1": ("libfontconfig1", "fontconfig"),
    "libfreetype.so.6": ("libfreetype6", "freetype2"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon"),
    "libxkbcommon-x11.so.0": ("libxkbcommon-x11-0", "libxkbcommon-x11"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus"),
    "libX11.so.6": ("libx11-6", "libx11"),
    "libX11-xcb.so.1": ("libx11-xcb1", "libx11"),
    "libxcb.so.1": ("libxcb1", "libxcb"),
    "libxcb-cursor.so.0": ("libxcb-cursor0", "xcb-util-cursor"),
    "libxcb-icccm.so.4": ("libxcb-icccm4", "xcb-util-wm"),
    "libxcb-image.so.0": ("libxcb-image0", "xcb-util-image"),
    "libxcb-keysyms.so.1": ("libxcb-keysyms1", "xcb-util-keysyms"),
    "libxcb-randr.so.0": ("libxcb-randr0", "libxcb"),
    "libxcb-render.so.0": ("libxcb-render0", "libxcb"),
    "libxcb-render-util.so.0": ("libxcb-render-util0", "xcb-util-renderutil"),
    "libxcb-shape.so.0": ("libxcb-shape0", "libxcb"),
    "libxcb-shm.so.0": ("libxcb-shm0", "libxcb"),
    "libxcb-sync.so.1": ("libxcb-sync1", "libxcb"),
    "libxcb-util.so.1": ("libxcb-util1", "xcb-util"),
    "libxcb-xfixes.so.0": ("libxcb-xfixes0", "libxcb"),
    "libxcb-xkb.so.1": ("libxcb-xkb1", "libxcb"),
    "libwayland-client.so.0": ("libwayland-client0", "wayland"),
    "libwayland-cursor.so.0": ("libwayland-cursor0", "wayland"),
    "libwayland-egl.so.1": ("libwayland-egl1", "wayland"),
    "libgssapi_krb5.so.2": ("libgssapi-krb5-2", "krb5"),
    "libbrotlidec.so.1": ("libbrotli1", "brotli"),
    "libbrotlicommon.so.1": ("libbrotli1", "brotli"),
    "libzstd.so.1": ("libzstd1", "zstd"),
}
"""What the payload needs of a system: Debian's and Arch's package for each library. RPM is asked for the
library itself."""
OF_GLIBC: Final = re.compile(r"(ld-linux|libdl|libm|libpthread|libresolv|librt|libutil)[-.]|libgthread-2")
MAINTAINER: Final = "The Ostler authors <ostler@localhost>"
DESCRIPTION: Final = (
    "Keeps the coding agents of this machine\n"
    "Ostler finds coding agents, gives them tasks, shows what they do and asks\n"
    "when they need you. Their runs survive a crash or an update of Ostler itself."
)
_NFPM: Final = Path(sys.executable).with_name("nfpm")
_IF_REMOVED: Final = {"deb": '[ "$1" = remove ]', "rpm": '[ "$1" = 0 ]', "archlinux": "true"}
_IF_GONE: Final = {"deb": '[ "$1" = remove ] || [ "$1" = purge ]', "rpm": '[ "$1" = 0 ]', "archlinux": "true"}
_ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}
_NAMES: Final = {"deb": "deb", "rpm": "rpm", "archlinux": "arch"}


def missing(kind: str, *, fast: bool = False) -> list[str]:
    """What this machine lacks to make a package (or the archive), in words."""
    needs = ["objdump"]
    if kind != TARBALL:
        needs.append("nfpm")
    if kind == "archlinux" and not fast:
        needs.append("bsdtar")
    return [why for why in map(lacks, needs) if why]


def lacks(program: str) -> str:
    """That a program is not here, and how to get it; empty: it is here."""
    found = _NFPM.exists() if program == "nfpm" else shutil.which(program) is not None
    return "" if found else f"{program} is not installed ({_WHERE_FROM[program]})"


def packages(source: layout.Source, out: Path, *, fast: bool = False) -> list[Path]:
    """Make all packages for package managers.

    Args:
        fast: Large ones, quickly: for tests.
    """
    return [package(source, kind, out, fast=fast) for kind in KINDS]


def package(source: layout.Source, kind: str, out: Path, *, fast: bool = False) -> Path:
    """Make one package; its file."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".pack-") as name:
        work = Path(name)
        root = work / "root"
        layout.lay_out(source, _NAMES[kind], root / "usr/lib/ostler")
        _system_files(source, root, work)
        target = out / _file_name(source, kind)
        config = work / "nfpm.yaml"  # which is a superset of JSON
        config.write_text(json.dumps(_config(source, kind, root, work, fast=fast)))
        _run_nfpm(config, kind, target)
    return target if fast else repacking.repack(target, kind, source.platform)


def _file_name(source: layout.Source, kind: str) -> str:
    machine = source.platform.partition("-")[2]
    match kind:
        case "deb":
            return f"ostler_{source.version}_{_ARCHITECTURES[machine]}.deb"
        case "rpm":
            return f"ostler-{source.version}-1.{'aarch64' if machine == 'arm64' else machine}.rpm"
    return f"ostler-{source.version}-1-{'aarch64' if machine == 'arm64' else machine}.pkg.tar.zst"


def _system_files(source: layout.Source, root: Path, work: Path) -> None:
    """What belongs outside of Ostler's own directory."""
    share = root / "usr/share"
    icons.draw(work / "icons")
    shutil.copytree(work / "icons/hicolor", share / "icons/hicolor")
    _fill(DATA / "ostler.desktop", share / "applications/ostler.desktop", source)
    name = "org.ostler.desktop.metainfo.xml"
    _fill(DATA / name, share / "metainfo" / name, source)
    _fill(DATA / "ostler.service", root / "usr/lib/systemd/user/ostler.service", source, BIN="/usr/bin")
    _manual(share / "man/man1", source)
    for shell, path in completions(work).items():
        target = share / _COMPLETION_PLACES[shell]
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
    copyright_file = share / "doc/ostler/copyright"
    copyright_file.parent.mkdir(parents=True)
    copyright_file.write_text(
        "Ostler is under the Apache License, version 2.0, which follows. What it brings along is under the\n"
        f"licences in /usr/lib/ostler/payload/{source.version}/licences.\n\n"
        + (places.SOURCE / "LICENSE").read_text()
    )
    program = root / "usr/bin"
    program.mkdir(parents=True)
    for each in layout.PROGRAMS:
        (program / each).symlink_to("../lib/ostler/launcher/ostler")
    for path in root.rglob("*"):
        if not path.is_symlink() and root / "usr/lib/ostler" not in path.parents:
            path.chmod(0o755 if path.is_dir() else 0o644)


_COMPLETION_PLACES: Final = {
    "bash": "bash-completion/completions/ostler",
    "zsh": "zsh/site-functions/_ostler",
    "fish": "fish/vendor_completions.d/ostler.fish",
}


def completions(work: Path) -> dict[str, Path]:
    """What completes the command line, for each shell: a file, as the command itself writes it."""
    import click
    from click.shell_completion import get_completion_class

    made = {}
    for shell in _COMPLETION_PLACES:
        complete = get_completion_class(shell)
        if complete is None:
            raise RuntimeError(f"click knows no completion for {shell}")
        text = complete(click.Command("ostler"), {}, "ostler", "_OSTLER_COMPLETE").source()
        made[shell] = work / f"completion.{shell}"
        made[shell].write_text(text)
    return made


def _manual(directory: Path, source: layout.Source) -> None:
    directory.mkdir(parents=True)
    text = _filled(DATA / "ostler.1", source).encode()
    (directory / "ostler.1.gz").write_bytes(gzip.compress(text, mtime=places.source_time()))
    for other in ("ostlerd", "ostler-desktop"):
        (directory / f"{other}.1.gz").symlink_to("ostler.1.gz")


def _fill(template: Path, target: Path, source: layout.Source, **values: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_filled(template, source, **values))


def _filled(template: Path, source: layout.Source, **values: str) -> str:
    return _with_values(template.read_text(), source, **values)


def _script(name: str) -> str:
    """A script of these packages with what it shares with others."""
    return (DATA / name).read_text().replace("@STOP@\n", (DATA / "stop.sh").read_text())


def _with_values(text: str, source: layout.Source, **values: str) -> str:
    date = datetime.fromtimestamp(places.source_time(), UTC).date().isoformat()
    for name, value in {"VERSION": source.version, "DATE": date, **values}.items():
        text = text.replace(f"@{name}@", value)
    return text


# --- nfpm ------------------------------------------------------------------------------------------


def _config(source: layout.Source, kind: str, root: Path, work: Path, *, fast: bool) -> dict[str, Any]:
    scripts = {}
    for name, condition in (("preremove", _IF_REMOVED[kind]), ("postremove", _IF_GONE[kind])):
        script = work / f"{name}.sh"
        script.write_text(_script(f"{name}.sh").replace("@IF_REMOVED@", condition))
        script.chmod(0o755)
        scripts[name] = str(script)
    contents: list[dict[str, Any]] = [
        {"src": os.readlink(path), "dst": f"/{path.relative_to(root)}", "type": "symlink"}
        for path in sorted(root.rglob("*"))
        if path.is_symlink()
    ]
    contents += [
        {
            "src": str(path),
            "dst": f"/{path.relative_to(root)}",
            "file_info": {"mode": path.stat().st_mode & 0o777},
        }
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    # RPM takes away only those directories that belong to the package.
    contents += [
        {"dst": f"/{path.relative_to(root)}", "type": "dir", "file_info": {"mode": 0o755}}
        for own in (root / "usr/lib/ostler", root / "usr/share/doc/ostler")
        for path in (own, *sorted(own.rglob("*")))
        if path.is_dir() and not path.is_symlink()
    ]
    return {
        "name": "ostler",
        "arch": _ARCHITECTURES[source.platform.partition("-")[2]],
        "platform": "linux",
        "version": source.version,
        "version_schema": "none",
        "release": "1",
        "section": "devel",
        "priority": "optional",
        "maintainer": MAINTAINER,
        "description": DESCRIPTION,
        "license": "Apache-2.0",
        "mtime": datetime.fromtimestamp(places.source_time(), UTC).isoformat().replace("+00:00", "Z"),
        "depends": dependencies(source, kind),
        "recommends": ["git", "ca-certificates"] if kind == "deb" else ["git"],
        "contents": contents,
        "scripts": scripts,
        "deb": {"compression": "none"},
        "rpm": {
            "compression": "gzip:1" if fast else "xz:6",
            "buildhost": "localhost",
            "summary": DESCRIPTION.split("\n")[0],
        },
        "archlinux": {"packager": MAINTAINER},
    }  # fmt: skip


def dependencies(source: layout.Source, kind: str) -> list[str]:
    """What the system has to have, named as this kind of package names it."""
    wanted, glibc = needed(source)
    if unknown := wanted - LIBRARIES.keys():
        raise ValueError(f"nobody knows which package has {', '.join(sorted(unknown))}")
    if kind == "rpm":
        named = sorted(f"{name}()(64bit)" for name in wanted if name != "libc.so.6")
        return [*named, f"libc.so.6(GLIBC_{glibc})(64bit)"]
    column = 0 if kind == "deb" else 1
    return sorted({LIBRARIES[name][column].format(glibc=glibc) for name in wanted})


def needed(source: layout.Source) -> tuple[set[str], str]:
    """The libraries that are wanted and not brought along, and the oldest C library that will do."""
    have: set[str] = set()
    want: set[str] = set()
    newest = (2, 17)
    for path in _binaries([source.payload, source.launcher]):
        have.add(path.name)
        said = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=False).stdout
        want |= set(re.findall(r"^\s+NEEDED\s+(\S+)$", said, re.MULTILINE))
        for version in re.findall(r"\bGLIBC_(\d+\.\d+)", said):
            major, minor = version.split(".")
            newest = max(newest, (int(major), int(minor)))
    return {name for name in want - have if not OF_GLIBC.match(name)}, f"{newest[0]}.{newest[1]}"


def _binaries(directories: Iterable[Path]) -> Iterable[Path]:
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and (".so" in path.name or path.parent == directory):
                with open(path, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def _run_nfpm(config: Path, kind: str, target: Path) -> None:
    done = subprocess.run(
        [str(_NFPM), "package", "--config", str(config), "--packager", kind, "--target", str(target)],
        capture_output=True, text=True, check=False, cwd=config.parent,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(places.source_time())},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"nfpm: {done.stdout}{done.stderr}")


# --- the archive -----------------------------------------------------------------------------------


def tarball(source: layout.Source, out: Path, *, fast: bool = False) -> Path:
    """Make the archive with an install script, for a user without root; its file.

    Args:
        fast: Not compressed: for tests.
    """
    out.mkdir(parents=True, exist_ok=True)
    top = f"ostler-{source.version}"
    target = out / f"{top}-{source.platform}-setup.tar{'' if fast else '.xz'}"
    with tempfile.TemporaryDirectory(dir=out, prefix=".pack-") as name:
        root = Path(name) / top
        layout.lay_out(source, "tarball", root / "lib")
        _user_files(source, root, Path(name))
        partial = Path(name) / target.name
        with (
            open(partial, "wb")
            if fast
            else lzma.open(partial, "wb", filters=repacking.filters(source.platform)) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in [root, *sorted(root.rglob("*"))]:
                tar.add(path, str(path.relative_to(name)), recursive=False, filter=_plain)
        partial.replace(target)
    return target


def _user_files(source: layout.Source, root: Path, work: Path) -> None:
    icons.draw(work / "icons")
    shutil.copytree(work / "icons/hicolor", root / "share/icons/hicolor")
    for name in ("ostler.desktop", "ostler.service"):
        _fill(DATA / name, root / "share" / name, source)
    _manual(root / "share/man/man1", source)
    for shell, path in completions(work).items():
        target = root / "share" / _COMPLETION_PLACES[shell]
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
    for name in ("install.sh", "uninstall.sh"):
        script = root / ("lib" if name == "uninstall.sh" else ".") / name
        values = {"GLIBC": needed(source)[1], "PLATFORM": source.platform}
        script.write_text(_with_values(_script(name), source, **values))
        script.chmod(0o755)
    shutil.copyfile(places.SOURCE / "LICENSE", root / "LICENSE")


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = places.source_time()
    # Not the builder's umask: what was built runs by the owner's bits.
    info.mode = 0o777 if info.issym() else 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    if info.islnk():
        raise ValueError(f"{info.name} would be a second name of another file")
    return info
