"""``packaging/release``: the verbs.

Exit codes: 0 all is well; 1 it did not go (what clients see has not changed unless it says so); 2 wrong
usage; 3 something expires soon and could not be signed with the keys at hand (for a daily job: tell
somebody).
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from releasing import changelog, client, publishing, upkeep
from releasing.errors import ReleaseError
from releasing.keys import KeyRing, Passphrases
from releasing.repository import OFFLINE, ROLES, Lifetimes, Repository, words

SOURCE: Final = Path(__file__).resolve().parents[2]
DUE_CODE: Final = 3
LIFETIMES: Final = Lifetimes()


@dataclass(frozen=True, slots=True)
class Tool:
    """What every verb is given."""

    repository: Repository
    ring: KeyRing
    places: tuple[Path, ...]
    dry_run: bool

    def say(self, line: str) -> None:
        click.echo(line)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    required=True,
    envvar="OSTLER_RELEASE_REPOSITORY",
    help="The repository's directory, which a web server serves (or which is copied to one).",
)
@click.option(
    "--keys",
    "places",
    type=click.Path(path_type=Path),
    multiple=True,
    envvar="OSTLER_RELEASE_KEYS",
    help="A directory with key files; can be given several times (one for each medium).",
)
@click.option(
    "--passphrase-stdin", is_flag=True, help="Read one passphrase for all keys from standard input."
)
@click.option("--root-days", default=LIFETIMES.root, show_default=True, help="Days until root expires.")
@click.option(
    "--targets-days", default=LIFETIMES.targets, show_default=True, help="Days until targets expire."
)
@click.option("--snapshot-days", default=LIFETIMES.snapshot, show_default=True, help="The same for snapshot.")
@click.option(
    "--timestamp-days",
    default=LIFETIMES.timestamp,
    show_default=True,
    help="The same for timestamp, 1 to 3: how long a frozen mirror goes unnoticed.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be done, write nothing.")
@click.pass_context
def release(
    context: click.Context,
    repository: Path,
    places: tuple[Path, ...],
    passphrase_stdin: bool,
    root_days: int,
    targets_days: int,
    snapshot_days: int,
    timestamp_days: int,
    dry_run: bool,
) -> None:
    """Makes releases of Ostler and keeps the signed repository that its updates come from."""
    piped = sys.stdin.readline().rstrip("\n") if passphrase_stdin else ""
    ask = getpass.getpass if sys.stdin.isatty() and not piped else None
    environ = dict(os.environ)
    context.obj = Tool(
        Repository(
            repository.absolute(),
            lifetimes=Lifetimes(root_days, targets_days, snapshot_days, timestamp_days),
        ),
        KeyRing([place.absolute() for place in places], Passphrases(environ, piped=piped, ask=ask), environ),
        tuple(place.absolute() for place in places),
        dry_run,
    )


@release.command()
@click.option("--root-keys", default=upkeep.DEFAULT_SHAPES["root"].keys, show_default=True)
@click.option("--root-threshold", default=upkeep.DEFAULT_SHAPES["root"].threshold, show_default=True)
@click.option("--targets-keys", default=upkeep.DEFAULT_SHAPES["targets"].keys, show_default=True)
@click.option("--targets-threshold", default=upkeep.DEFAULT_SHAPES["targets"].threshold, show_default=True)
@click.option("--offline", type=click.Path(path_type=Path), help="Where the keys of root and targets go.")
@click.option("--online", type=click.Path(path_type=Path), help="Where those of snapshot and timestamp go.")
@click.option("--unprotected-online", is_flag=True, help="Give the online keys no passphrase.")
@click.pass_obj
def init(
    tool: Tool,
    root_keys: int,
    root_threshold: int,
    targets_keys: int,
    targets_threshold: int,
    offline: Path | None,
    online: Path | None,
    unprotected_online: bool,
) -> None:
    """Make keys and an empty repository. Once in a product's life."""
    places = {role: _one_place(tool, offline if role in OFFLINE else online) for role in ROLES}
    shapes = {
        **upkeep.DEFAULT_SHAPES,
        "root": upkeep.Shape(root_keys, root_threshold),
        "targets": upkeep.Shape(targets_keys, targets_threshold),
    }
    if tool.dry_run:
        for role, shape in shapes.items():
            tool.say(
                f"would make {shape.keys} keys of {role} in {places[role]}, {shape.threshold} have to sign"
            )
        return
    tool.repository.directory.mkdir(parents=True, exist_ok=True)
    with tool.repository.locked():
        upkeep.init(tool.repository, tool.ring, places, shapes, unprotected_online=unprotected_online)
    for role in ROLES:
        tool.say(f"made the keys of {role} in {places[role]}")
    tool.say(f"installers bring {tool.repository.metadata / 'root.json'} as the root of trust")
    if places["root"] == places["timestamp"]:
        tool.say("move the keys of root and targets to media that are not connected, and make copies of them")


@release.command()
@click.option("--out", type=click.Path(path_type=Path), default=SOURCE / "dist", show_default=True)
@click.option("--version", default="", help="Release this build under another version than the source says.")
@click.option(
    "--url", default="", help="Where installers are told that updates' metadata is: https://…/metadata"
)
@click.option("--targets-url", default="", help="Where the files are, if not in targets/ beside it.")
@click.option("--channel", default="stable", show_default=True)
@click.option("--fast", is_flag=True, help="Large and quick, for trying out.")
@click.pass_obj
def build(tool: Tool, out: Path, version: str, url: str, targets_url: str, channel: str, fast: bool) -> None:
    """Build the version of this source: the full package and every installer that this machine can make."""
    from releasing import building_all

    root = tool.repository.metadata / "root.json"
    updates = building_all.Updates(url, targets_url, channel, root)
    made, could_not = building_all.build(
        out.absolute(), updates, version=version, say=tool.say, dry_run=tool.dry_run, fast=fast
    )
    for path in made:
        tool.say(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else path.name)
    for line in could_not:
        tool.say(f"not made here: {line}")


@release.command()
@click.argument("payload", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path), default=SOURCE / "dist", show_default=True)
@click.pass_obj
def pack(tool: Tool, payload: Path, out: Path) -> None:
    """Pack a PAYLOAD whose programs were signed after the build (Windows, macOS): manifest anew, full
    package."""
    from releasing import building_all

    if tool.dry_run:
        tool.say(f"would write the manifest of {payload} anew and pack it into {out}")
        return
    made = building_all.pack_signed(payload, out.absolute())
    tool.say(f"{made.name}: {made.stat().st_size / 1e6:.1f} MB")


@release.command()
@click.argument("version")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, file_okay=False),
    default=SOURCE / "dist",
    show_default=True,
    help="Where the full packages are.",
)
@click.option(
    "--changelog",
    "changelogs",
    type=click.Path(path_type=Path, file_okay=False),
    default=SOURCE,
    help="Where CHANGELOG.md is, and CHANGELOG.de.md and CHANGELOG.zh.md if there are any.",
)
@click.option("--allow-dirty", is_flag=True, help="Take changelogs with changes that are not committed.")
@click.option(
    "--fraction", default=1.0, show_default=True, help="Share of installations that are offered it."
)
@click.option(
    "--deltas-from",
    default=publishing.DELTAS_FROM,
    show_default=True,
    help="Make deltas from so many versions before.",
)
@click.pass_obj
def publish(
    tool: Tool,
    version: str,
    source: Path,
    changelogs: Path,
    allow_dirty: bool,
    fraction: float,
    deltas_from: int,
) -> None:
    """Offer VERSION: files first, metadata last."""
    notes = changelog.notes(changelogs, version, allow_dirty=allow_dirty)
    if not source.is_dir():
        raise ReleaseError(f"there is no {source} (make it: release build)")
    with tool.repository.locked():
        publishing.publish(
            tool.repository, tool.ring, version, source.iterdir(), notes, fraction=fraction,
            deltas_from=deltas_from, dry_run=tool.dry_run, say=tool.say,
        )  # fmt: skip
        if not tool.dry_run:
            tool.say(f"{version} is out, offered to {fraction:.0%}; in {', '.join(notes)}")


@release.command()
@click.argument("version")
@click.argument("share", type=float)
@click.pass_obj
def fraction(tool: Tool, version: str, share: float) -> None:
    """Offer a published VERSION to another SHARE of installations (0 to 1)."""
    with tool.repository.locked():
        publishing.set_fraction(tool.repository, tool.ring, version, share, dry_run=tool.dry_run)
    tool.say(f"{'would offer' if tool.dry_run else 'offered'} {version} to {share:.0%}")


@release.command()
@click.argument("version")
@click.pass_obj
def withdraw(tool: Tool, version: str) -> None:
    """Offer VERSION to nobody any more, also not to those who ask. It is not taken from those who have it."""
    with tool.repository.locked():
        publishing.withdraw(tool.repository, tool.ring, version, dry_run=tool.dry_run)
    tool.say(
        f"{'would withdraw' if tool.dry_run else 'withdrew'} {version}; who has it gets the next version"
    )


@release.command()
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(ROLES), help="Only this one; several times."
)
@click.pass_obj
def resign(tool: Tool, roles: tuple[str, ...]) -> None:
    """Sign again before it expires: snapshot and timestamp always, the others when due and their keys are
    here.

    For a daily job on the machine with the online keys; exit code 3 asks for a person with offline keys.
    """
    with tool.repository.locked():
        signed, cannot = upkeep.resign(tool.repository, tool.ring, roles, dry_run=tool.dry_run)
        tool.say(f"{'would sign' if tool.dry_run else 'signed'}: {', '.join(signed)}")
        _say_dues(tool)
    for line in cannot:
        click.echo(f"release: {line}", err=True)
    if cannot:
        sys.exit(DUE_CODE)


@release.command("rotate-key")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("key")
@click.option(
    "--into", type=click.Path(path_type=Path), help="Where the new key goes (default: the only --keys)."
)
@click.option("--unprotected", is_flag=True, help="Give the new key no passphrase (online keys only).")
@click.pass_obj
def rotate_key(tool: Tool, role: str, key: str, into: Path | None, unprotected: bool) -> None:
    """Replace KEY (name or id) of ROLE by a new one. Needs the keys of root, and ROLE's other keys if it has
    any."""
    if unprotected and role in OFFLINE:
        raise ReleaseError(f"a key of {role} is always protected by a passphrase")
    with tool.repository.locked():
        name = upkeep.rotate_key(
            tool.repository, tool.ring, role, key, _one_place(tool, into), protected=not unprotected,
            dry_run=tool.dry_run,
        )  # fmt: skip
    if tool.dry_run:
        tool.say(f"would replace {key} of {role}")
    else:
        tool.say(f"{role} is signed by {name} instead of {key} from now on; make a copy of the new key")
        tool.say(f"the next installers bring {tool.repository.metadata / 'root.json'}")


@release.command()
@click.option(
    "--days", default=14.0, show_default=True, help="Keep what was written in the last so many days."
)
@click.pass_obj
def prune(tool: Tool, days: float) -> None:
    """Remove files of versions that are no longer listed."""
    with tool.repository.locked():
        for name in publishing.prune(tool.repository, days, dry_run=tool.dry_run):
            tool.say(f"{'would remove' if tool.dry_run else 'removed'} {name}")


@release.command()
@click.pass_obj
def status(tool: Tool) -> None:
    """What is published, and what expires when. Exit code 3: something expires soon."""
    state = tool.repository.state()
    for each in publishing.offered(state):
        share = "withdrawn" if each.withdrawn else f"{each.fraction:.0%}"
        deltas = f", deltas from {', '.join(each.deltas_from)}" if each.deltas_from else ""
        tool.say(
            f"{each.version}  {each.platform}  {share}  {each.bytes / 1e6:.1f} MB{deltas}  {each.released_at}"
        )
    for trouble in state.troubles:
        click.echo(f"release: {trouble}", err=True)
    for role in ROLES:
        entry = state.root.signed.roles[role]
        names = ", ".join(tool.ring.names(entry.keyids).values())
        tool.say(f"{role}: {entry.threshold} of {len(entry.keyids)} sign ({names})")
    if _say_dues(tool) or state.troubles:
        sys.exit(DUE_CODE)


@release.command()
@click.option("--url", help="Ask a live server instead of the directory.")
@click.option("--platform", default="", help="Only this one.")
@click.option(
    "--installed", default="", help="The version that the client has (default: each published one)."
)
@click.pass_obj
def verify(tool: Tool, url: str | None, platform: str, installed: str) -> None:
    """Be a client: what would one get that is new, or has one of the published versions?"""
    state = tool.repository.state()
    first = (tool.repository.metadata / "1.root.json").read_bytes()
    published = publishing.offered(state)
    platforms = [platform] if platform else sorted({each.platform for each in published}) or ["linux-x86_64"]
    wrong: list[str] = []
    with client.served(tool.repository.directory) as own:
        for name in platforms:
            versions = [installed] if installed else ["0", *_versions(published, name)]
            for version in versions:
                seen = client.ask(url or own, first, platform=name, installed=version)
                tool.say(f"{name} {'without a version' if version == '0' else version}: {_in_words(seen)}")
                wrong += [seen.code] if seen.code != "ok" else client.missing(seen)
    if wrong:
        raise ReleaseError("; ".join(dict.fromkeys(wrong)))


def _versions(published: Sequence[publishing.Offered], platform: str) -> list[str]:
    return [each.version for each in reversed(published) if each.platform == platform]


def _in_words(seen: client.Seen) -> str:
    if seen.code != "ok":
        return f"trusts nothing of it: {seen.code} {seen.params or ''}"
    withdrawn = f" (withdrawn: {', '.join(seen.withdrawn)})" if seen.withdrawn else ""
    if not seen.version:
        return f"is up to date{withdrawn}"
    return f"gets {seen.version} by {'a delta' if seen.delta else 'the full package'}{withdrawn}"


def _say_dues(tool: Tool) -> bool:
    """Say what expires when; whether something does soon."""
    dues = upkeep.dues(tool.repository, tool.repository.state())
    for due in dues:
        when = "HAS EXPIRED" if due.left <= dt.timedelta() else f"in {_days(due.left)}"
        soon = " (soon)" if due.soon else ""
        tool.say(f"{due.role} {due.version}: expires {due.expires:%Y-%m-%d %H:%M} UTC, {when}{soon}")
    return any(due.soon for due in dues)


def _days(left: dt.timedelta) -> str:
    return f"{left.days} days" if left.days >= 2 else f"{left.total_seconds() / 3600:.0f} hours"


def _one_place(tool: Tool, named: Path | None) -> Path:
    if named is not None:
        return named.absolute()
    if len(tool.places) != 1:
        raise ReleaseError("say where new keys go: one --keys, or --offline, --online or --into")
    return tool.places[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    try:
        release.main(arguments, prog_name="release", standalone_mode=True)
    except ReleaseError as error:
        click.echo(f"release: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"release: {words(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
