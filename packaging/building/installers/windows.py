"""The installer for Windows: NSIS, for one user, without administrator rights.

The payload itself can only be built on Windows; the installer around it can be compiled anywhere, so a
mistake in its script shows here. It has not been run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from building import places
from building.installers import icons, layout

DATA: Final = places.PACKAGING / "windows"
APP_ID: Final = "Ostler.Desktop"
"""Windows groups windows, and tells notifications apart, by it."""


def not_here() -> list[str]:
    return ["the installer for Windows: its payload has to be built on Windows (packaging/installers there)"]


def make(source: layout.Source, out: Path) -> tuple[list[Path], list[str]]:
    """Make it where there is a payload for Windows; says why not otherwise."""
    if shutil.which("makensis") is None:
        return [], ["the installer for Windows: makensis is not installed (it comes with NSIS)"]
    return [compile_installer(source, out)], []


def compile_installer(source: layout.Source, out: Path) -> Path:
    """Compile the installer around a payload, whatever that is; its file."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"ostler-{source.version}-{source.platform}-setup.exe"
    with tempfile.TemporaryDirectory(dir=out, prefix=".pack-") as name:
        work = Path(name)
        layout.lay_out(source, "windows", work / "files")
        icons.draw(work / "icons")
        shutil.copyfile(places.SOURCE / "LICENSE", work / "LICENSE.txt")
        for path in work.rglob("*"):
            os.utime(path, (places.source_time(),) * 2)  # the installer has the files' times in it
        done = subprocess.run(
            [
                "makensis", "-V2", "-WX", "-NOCD", "-INPUTCHARSET", "UTF8",
                f"-DVERSION={source.version}", f"-DNUMBERS={_numbers(source.version)}",
                f"-DFILES={work / 'files'}", f"-DICON={work / 'icons' / 'ostler.ico'}",
                f"-DLICENCE={work / 'LICENSE.txt'}", f"-DAPP_ID={APP_ID}", f"-DTARGET={target}",
                f"-DSIZE_KB={_size_kb(work / 'files')}", *(["-DROOT"] if source.root is not None else []),
                str(DATA / "ostler.nsi"),
            ],
            capture_output=True, text=True, check=False,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(places.source_time())},
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"makensis: {done.stdout}{done.stderr}")
    return target


def _numbers(version: str) -> str:
    """Four numbers, as Windows wants them in a file's properties."""
    numbers = [part for part in version.replace("-", ".").replace("+", ".").split(".") if part.isdigit()][:4]
    return ".".join([*numbers, "0", "0", "0", "0"][:4])


def _size_kb(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) // 1024
