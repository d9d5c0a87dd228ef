"""All installers of a build that can be made on this machine: ``packaging/installers``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from building import payload
from building.installers import layout, linux, macos, windows


def make_all(
    source: layout.Source, out: Path, *, fast: bool = False, say: Callable[[str], None] | None = None
) -> tuple[list[Path], list[str]]:
    """Make every installer that can be made here.

    Args:
        source: Payload and launcher with what they are told at installation.
        fast: Large and quick, for tests.
        say: Is told of each file.

    Returns:
        The files, and for each kind that was not made what it is and what it needs.
    """
    made: list[Path] = []
    could_not: list[str] = []
    system = source.platform.partition("-")[0]
    if system == "linux":
        for kind in (*linux.KINDS, linux.TARBALL):
            if missing := linux.missing(kind, fast=fast):
                could_not.append(f"{linux.WORDS[kind]}: {'; '.join(missing)}")
                continue
            make = linux.tarball if kind == linux.TARBALL else partial(linux.package, kind=kind)
            made.append(make(source, out=out, fast=fast))
            if say is not None:
                say(f"made {made[-1].name}")
    for name, module in (("windows", windows), ("macos", macos)):
        if system == name:
            found, why = module.make(source, out)
            made += found
            could_not += why
        else:
            could_not += module.not_here()
    return made, could_not


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="packaging/installers", description="Make the installers of this source, as far as can be here."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the directory they are put into")
    parser.add_argument("--payload", type=Path, metavar="DIR", help="a stamped payload instead of a build")
    parser.add_argument("--root", type=Path, metavar="FILE", help="the root of trust for updates")
    parser.add_argument("--url", default="", help="where updates' metadata comes from")
    parser.add_argument("--targets-url", default="", help="where their files come from, if elsewhere")
    parser.add_argument("--channel", default="stable")
    parser.add_argument("--fast", action="store_true", help="large and quick, for trying out")
    options = parser.parse_args(arguments)
    if sys.platform == "linux" and (why := linux.lacks("objdump")):
        sys.exit(f"installers: nothing can be built: {why}")
    built = payload.build(release=True)
    source = layout.Source(
        payload=options.payload or built / "payload",
        launcher=built / "launcher",
        url=options.url,
        targets_url=options.targets_url,
        channel=options.channel,
        root=options.root,
    )
    if bool(source.url) != bool(source.root):
        sys.exit("installers: updates need both --url and --root")
    made, could_not = make_all(source, options.out.absolute(), fast=options.fast)
    for path in made:
        print(path)  # noqa: T201
    for line in could_not:
        sys.stderr.write(f"not made: {line}\n")
    if not made:
        sys.exit("installers: nothing could be made")


if __name__ == "__main__":
    main()
