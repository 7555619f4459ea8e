"""A bundle: the Cedar files of one policy, and the hash that names it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError

PROFILES = "profiles/"
SUFFIX = ".cedar"
MAX_FILES = 200
MAX_FILE_BYTES = 256 << 10
_NAME = re.compile(r"(?:profiles/)?[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\.cedar")


class PolicyRefused(SekishoError):
    """Policy files that can't be used; the fact has a line for each mistake, `file:line:col: what; mend`."""

    code = "policy.refused"


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the path inside the bundle: `2-confidential.cedar`, `profiles/gov-cloud.cedar`."""

    name: str
    text: str

    @property
    def profile(self) -> str:
        """The profile that this file is, or empty: a file in `profiles/` holds for the tenants of that profile."""
        return self.name.removeprefix(PROFILES).removesuffix(SUFFIX) if self.name.startswith(PROFILES) else ""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Files in the order of evaluation: the common ones by name, then the profiles by name."""

    files: tuple[PolicyFile, ...]

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over the names and texts."""
        digest = hashlib.sha256(b"sekisho/policy-bundle/v1\n")
        for file in self.files:
            for part in (file.name, file.text):
                data = part.encode()
                digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    @property
    def profiles(self) -> tuple[str, ...]:
        return tuple(file.profile for file in self.files if file.profile)


def bundle_of(texts: Mapping[str, str]) -> Bundle:
    """The bundle of these files (name → text); PolicyRefused for a name or a size that no bundle can have."""
    if len(texts) > MAX_FILES:
        raise PolicyRefused(f"there are {len(texts)} policy files, more than {MAX_FILES}", hint="join some of them")
    for name, text in texts.items():
        if not _NAME.fullmatch(name):
            raise PolicyRefused(
                f"{name[:120]!r} is no name of a policy file",
                hint="use a-z, 0-9, `.`, `_` and `-`, as in 2-confidential.cedar or profiles/gov-cloud.cedar",
            )
        if len(text.encode()) > MAX_FILE_BYTES:
            raise PolicyRefused(f"{name} is larger than {MAX_FILE_BYTES >> 10} KiB", hint="split it into two files")
    ordered = sorted(texts, key=lambda name: (name.startswith(PROFILES), name))
    return Bundle(files=tuple(PolicyFile(name=name, text=texts[name].replace("\r\n", "\n")) for name in ordered))


def default_bundle() -> Bundle:
    """What comes with the program."""
    return bundle_of(_packaged())


def load_bundle(directory: Path | None) -> Bundle:
    """The default files, with those of `directory` in place of the ones that have the same name and beside them.

    An empty file takes a default one out. Raises PolicyRefused when the directory can't be read.
    """
    texts = _packaged()
    if directory is not None:
        texts |= _from_directory(directory)
    return bundle_of({name: text for name, text in texts.items() if text.strip()})


def schema_text() -> str:
    """The Cedar schema: which attributes there are."""
    return (_files() / "schema.cedarschema").read_text(encoding="utf-8")


def default_cases() -> dict[str, str]:
    """The policy tests that come with the default files (name → TOML text)."""
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in (_files() / "tests").iterdir()
        if entry.name.endswith(".toml")
    }


def _files() -> resources.abc.Traversable:
    return resources.files("sekisho.residency.policy") / "files"


def _packaged() -> dict[str, str]:
    root = _files()
    found = {entry.name: entry for entry in root.iterdir() if entry.name.endswith(SUFFIX)}
    found |= {PROFILES + entry.name: entry for entry in (root / "profiles").iterdir() if entry.name.endswith(SUFFIX)}
    return {name: entry.read_text(encoding="utf-8") for name, entry in found.items()}


def _from_directory(directory: Path) -> dict[str, str]:
    try:
        if not directory.is_dir():
            raise PolicyRefused(
                f"there is no policy directory {directory}", hint="make it, or take `policies` out of [residency]"
            )
        return dict(_texts(directory, _cedar_files(directory)))
    except OSError as error:
        raise PolicyRefused(
            f"the policy files in {directory} can't be read: {error.strerror or error}",
            hint="look at who may read them",
        ) from None


def _cedar_files(directory: Path) -> Iterable[Path]:
    yield from sorted(directory.glob(f"*{SUFFIX}"))
    yield from sorted((directory / PROFILES).glob(f"*{SUFFIX}"))


def _texts(directory: Path, paths: Iterable[Path]) -> Iterable[tuple[str, str]]:
    for path in paths:
        name = path.relative_to(directory).as_posix()
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise PolicyRefused(f"{name} is larger than {MAX_FILE_BYTES >> 10} KiB", hint="split it into two files")
        try:
            yield name, data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PolicyRefused(f"{name}:{line}:1: this is not UTF-8 text", hint="save the file as UTF-8") from None
