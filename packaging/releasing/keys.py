"""The keys: one file each, 0600, protected by a passphrase; the public half beside it tells which one it is.

``root-1.pem``   private key, PKCS #8, encrypted
``root-1.json``  {"keyid", "role", "public"}: lets the file be found without its passphrase

The keys of root and targets are kept offline, on media that are put in for a release and taken out again, so
several places can be named. A key can also come from the environment (``OSTLER_RELEASE_KEY_TIMESTAMP``: the
PEM text), which is how a machine that only re-signs gets it from its store of secrets.

A passphrase comes from the environment (``OSTLER_RELEASE_PASSPHRASE_ROOT_1``, ``…_ROOT``, or the one for all,
``OSTLER_RELEASE_PASSPHRASE``), from standard input, or from a prompt; never from an argument, which every
process of the machine could read.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from releasing.errors import KeyMissingError, PassphraseError, ReleaseError

KEY_VARIABLE: Final = "OSTLER_RELEASE_KEY_"
PASSPHRASE_VARIABLE: Final = "OSTLER_RELEASE_PASSPHRASE"
MIN_PASSPHRASE: Final = 8


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it lies there; ``path`` is None for one of the environment."""

    name: str
    role: str
    keyid: str
    path: Path | None


class Passphrases:
    """Where passphrases come from.

    Args:
        environ: The environment.
        piped: What came on standard input: one passphrase for all keys that the environment has none for.
        ask: Prompts for one; None: nobody is there to ask.
    """

    def __init__(
        self, environ: Mapping[str, str], *, piped: str = "", ask: Callable[[str], str] | None = None
    ) -> None:
        self._environ = environ
        self._piped = piped
        self._ask = ask
        self._known: dict[str, str] = {}

    def of(self, name: str, role: str) -> str:
        """The passphrase of a key.

        Raises:
            PassphraseError: There is none.
        """
        for variable in (f"_{_upper(name)}", f"_{_upper(role)}", ""):
            if value := self._environ.get(PASSPHRASE_VARIABLE + variable):
                return value
        if self._piped:
            return self._piped
        if name not in self._known:
            self._known[name] = self._ask(f"Passphrase of {name}: ") if self._ask is not None else ""
        if not self._known[name]:
            raise PassphraseError(
                f"no passphrase for {name}: set {PASSPHRASE_VARIABLE}_{_upper(role)}, use "
                f"--passphrase-stdin, "
                "or run this on a terminal"
            )
        return self._known[name]

    def new(self, name: str, role: str) -> str:
        """The passphrase for a new key; where it is typed, it is typed twice.

        Raises:
            PassphraseError: There is none, it is too short, or the two differ.
        """
        typed_before = set(self._known)
        passphrase = self.of(name, role)
        if len(passphrase) < MIN_PASSPHRASE:
            self._known.pop(name, None)
            raise PassphraseError(f"the passphrase of {name} has fewer than {MIN_PASSPHRASE} characters")
        typed = name in self._known and name not in typed_before
        if typed and self._ask is not None and self._ask(f"Once more for {name}: ") != passphrase:
            del self._known[name]
            raise PassphraseError(f"the two passphrases of {name} differ")
        return passphrase


class KeyRing:
    """The keys that are at hand.

    Args:
        places: Directories with key files.
    """

    def __init__(
        self, places: Sequence[Path], passphrases: Passphrases, environ: Mapping[str, str] | None = None
    ) -> None:
        self._places = list(places)
        self._passphrases = passphrases
        self._environ = dict(environ or {})
        self._signers: dict[str, CryptoSigner] = {}
        self._given: dict[str, StoredKey] = {}

    def stored(self) -> dict[str, StoredKey]:
        """The keys by id.

        Raises:
            ReleaseError: A file about a key is damaged.
        """
        found = dict(self._of_environment())
        for place in self._places:
            for path in sorted(place.glob("*.json")):
                key = _described(path)
                if key.path is not None and key.path.exists():
                    found[key.keyid] = key
        return found

    def _of_environment(self) -> dict[str, StoredKey]:
        for variable, pem in list(self._environ.items()):
            if variable.startswith(KEY_VARIABLE) and pem:
                del self._environ[variable]  # once is enough: opening it takes time
                name = variable.removeprefix(KEY_VARIABLE).lower().replace("_", "-")
                role = name.rstrip("-0123456789")
                signer = self._signer(_parsed(pem.encode(), name, role, self._passphrases))
                keyid = signer.public_key.keyid
                self._signers[keyid] = signer
                self._given[keyid] = StoredKey(name, role, keyid, None)
        return self._given

    def has(self, keyid: str) -> bool:
        return keyid in self.stored()

    def signer(self, keyid: str) -> CryptoSigner:
        """What signs with this key.

        Raises:
            KeyMissingError: It is not here.
            PassphraseError: It does not open.
            ReleaseError: Its file can be read by others, or is damaged.
        """
        if keyid not in self._signers:
            key = self.stored().get(keyid)
            if key is None:
                raise KeyMissingError(f"the key {keyid[:12]} is in none of: {self._named()}")
            if keyid not in self._signers:
                assert key.path is not None
                pem = _private(key.path)
                signer = self._signer(_parsed(pem, key.name, key.role, self._passphrases))
                if signer.public_key.keyid != keyid:
                    raise ReleaseError(f"{key.path} is another key than {key.path.with_suffix('.json')} says")
                self._signers[keyid] = signer
        return self._signers[keyid]

    def names(self, keyids: Sequence[str]) -> dict[str, str]:
        """Key ids with the names of those that are here."""
        stored = self.stored()
        return {keyid: stored[keyid].name if keyid in stored else keyid[:12] for keyid in keyids}

    def make(self, role: str, place: Path, *, protected: bool = True) -> CryptoSigner:
        """A new key for a role, stored in ``place`` under the next free number.

        Raises:
            PassphraseError: There is none for it.
            OSError: It cannot be written.
        """
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = {path.stem for each in [*self._places, place] for path in each.glob(f"{role}-*.*")}
        number = next(each for each in range(1, 10_000) if f"{role}-{each}" not in taken)
        name = f"{role}-{number}"
        passphrase = self._passphrases.new(name, role) if protected else ""
        signer = CryptoSigner.generate_ed25519()
        private = load_pem_private_key(signer.private_bytes, None)
        pem = private.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(passphrase.encode()) if protected else NoEncryption(),
        )
        public = signer.public_key
        _write_new(place / f"{name}.pem", pem, 0o600)
        about = {"keyid": public.keyid, "role": role, "public": public.to_dict()}
        _write_new(place / f"{name}.json", json.dumps(about, indent=1).encode() + b"\n", 0o644)
        if place not in self._places:
            self._places.append(place)
        self._signers[public.keyid] = signer
        return signer

    def _signer(self, private: PrivateKeyTypes) -> CryptoSigner:
        return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))

    def _named(self) -> str:
        return ", ".join(str(place) for place in self._places) or "(no place was named: use --keys)"


def _described(path: Path) -> StoredKey:
    try:
        about = json.loads(path.read_bytes())
        return StoredKey(path.stem, str(about["role"]), str(about["keyid"]), path.with_suffix(".pem"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} does not describe a key: {error}") from error


def _private(path: Path) -> bytes:
    """A key file's content, if nobody else can read it."""
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if sys.platform != "win32" and stat.S_IMODE(mode) & 0o077:
            raise ReleaseError(
                f"{path} can be read by others: chmod 600 it, and think about rotating that key"
            )
        return file.read(1 << 16)


def _parsed(pem: bytes, name: str, role: str, passphrases: Passphrases) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except TypeError:
        pass  # it is protected
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{name} is no key: {error}") from error
    word = passphrases.of(name, role)
    try:
        return load_pem_private_key(pem, word.encode())
    except ValueError as error:
        raise PassphraseError(f"the passphrase of {name} is wrong") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
