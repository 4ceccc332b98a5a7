"""Encryption of stored keys, by keys that are in no database: in a file that Shadow's user alone reads, or in a setting.

The newest one encrypts, all of them decrypt. What is sealed holds whose it is and where it may go: moved to another owner or
another address, it does not open.
"""

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shadow.core.errors import Broken, Conflict, Denied, SettingsRefused
from shadow.core.keys import ProviderKey, SealingKeyMissing
from shadow.db.keys import SealedKey

MAX_FILE_BYTES = 64 * 1024
_NAME_CHARS = 16
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """``keys``: of Fernet, the newest first."""

    keys: tuple[bytes, ...] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(key).hexdigest()[:_NAME_CHARS] for key in self.keys)

    def seal(self, owner: str, about: ProviderKey, key: str) -> SealedKey:
        from cryptography.fernet import Fernet  # not above: most commands seal nothing

        content = {"v": _VERSION, **_bound(owner, about), "key": key}
        sealed = Fernet(self.keys[0]).encrypt(json.dumps(content).encode())
        return SealedKey(owner=owner, about=about, sealed=sealed.decode(), sealed_by=self.names[0])

    def open(self, sealed: SealedKey) -> str:
        """Raises: SealingKeyMissing: it was sealed by another one; Broken: it is damaged, or not where it was put."""
        from cryptography.fernet import Fernet, InvalidToken

        self.check([sealed.sealed_by])
        try:
            content = json.loads(Fernet(self.keys[self.names.index(sealed.sealed_by)]).decrypt(sealed.sealed.encode()))
        except (InvalidToken, ValueError) as error:
            raise _not_as_stored(sealed) from error
        if content != {"v": _VERSION, **_bound(sealed.owner, sealed.about), "key": content.get("key")}:
            raise _not_as_stored(sealed)
        return content["key"]

    def check(self, names: Sequence[str]) -> None:
        """Raises: SealingKeyMissing: it lacks one of them."""
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise SealingKeyMissing(
                f"What is stored was encrypted with the sealing key {missing[0]}, which is not here.",
                mend="Whoever runs Shadow puts back the file that had it (SHADOW_SEALING_KEY_FILE), or names it in "
                "SHADOW_SEALING_KEYS; see docs/operations.md. What nobody can open any more is removed with "
                "`shadow key remove` and added again.",
                details={"missing": missing},
            )


def _bound(owner: str, about: ProviderKey) -> dict[str, str | None]:
    return {"owner": owner, "provider": about.provider, "base_url": about.base_url}


def _not_as_stored(sealed: SealedKey) -> Broken:
    return Broken(f"The key for {sealed.about.provider} is not as it was stored.", mend="Add it again: shadow key add")


NONE = Ring(keys=())


class SealingKeys:
    """Read anew at each use: what another process has changed counts at once."""

    def __init__(self, *, file: Path, given: str = "") -> None:
        """``given``: keys in place of the file, parted by blanks or commas, the newest first."""
        self._file = file
        self._given = given

    def ring(self) -> Ring:
        """What is there; ``NONE``: no file. Raises: Denied, SettingsRefused."""
        if self._given.strip():
            return Ring(keys=_parsed(self._given, "SHADOW_SEALING_KEYS"))
        try:
            with self._file.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(MAX_FILE_BYTES + 1).decode("ascii", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return NONE
        except OSError as error:
            raise Denied(f"{self._file} cannot be read: {error.strerror}.", mend="Check its permissions.") from error
        if mode & stat.S_IRWXO:
            raise Denied(
                f"{self._file} can be read by everybody on this host.", mend=f"chmod o-rwx {self._file}; then rotate."
            )
        return Ring(keys=_parsed(text, str(self._file)))

    def made(self) -> Ring:
        """As ``ring``; where there is no file, one with a new key. To be asked for where nothing is sealed yet."""
        found = self.ring()
        if found.keys:
            return found
        self._write([_new_key()], replacing=False)
        return self.ring()  # of who was faster, if somebody was

    def renewed(self) -> Ring:
        """With a new key in front, from now on. Raises: as ``ring``; what is named by the setting stays as it is."""
        found = self.ring()
        if self._given.strip():
            return found
        self._write([_new_key(), *found.keys], replacing=True)
        return self.ring()

    def check_file(self) -> None:
        """Raises: Conflict: the setting has them."""
        if self._given.strip():
            raise Conflict(
                "SHADOW_SEALING_KEYS has the sealing keys.", mend="Take the old ones out of it, on every server."
            )

    def forget_old(self) -> None:
        """Only the newest one stays. Raises: as ``check_file``."""
        self.check_file()
        self._write(self.ring().keys[:1], replacing=True)

    def _write(self, keys: Sequence[bytes], *, replacing: bool) -> None:
        new = self._file.with_name(f".{self._file.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(new, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(b"".join(key + b"\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            try:
                if replacing:
                    new.replace(self._file)
                else:
                    with suppress(FileExistsError):
                        os.link(new, self._file)
                _sync(self._file.parent)
            finally:
                new.unlink(missing_ok=True)
        except OSError as error:
            raise Denied(
                f"{self._file} cannot be written: {error.strerror}.", mend="Set SHADOW_SEALING_KEY_FILE."
            ) from error


def _parsed(text: str, where: str) -> tuple[bytes, ...]:
    """Raises: SettingsRefused: without what it holds."""
    from cryptography.fernet import Fernet

    keys = tuple(part.encode() for part in text.replace(",", " ").split())
    try:
        for key in keys:
            Fernet(key)
    except ValueError as error:
        raise SettingsRefused(
            f"{where} holds something that is no sealing key.",
            mend="Each is 32 random bytes in URL-safe base64, one a line, the newest first.",
        ) from error
    if not keys:
        raise SettingsRefused(f"{where} holds no sealing key.", mend="Put back the file as it was.")
    return keys


def _new_key() -> bytes:
    from cryptography.fernet import Fernet

    return Fernet.generate_key()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
