"""A pack as a file: a ZIP whose files are named with their digests in a manifest that the log's key signs."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import Protocol

from sekisho.ledger.pack.model import PackRefused
from sekisho.ledger.tlog.keys import VerifierKey, open_note
from sekisho.ledger.tlog.note import NoteRefused

MANIFEST = "manifest"
# The first line tells this text from a checkpoint, whose second line is a number.
_TITLE = "sekisho evidence pack v1"
_LINE = re.compile(r"([0-9a-f]{64}) ([a-z0-9][a-z0-9./_-]{0,159})")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that ZIP knows: the same files make the same archive
MAX_PACK_BYTES = 512 << 20


class Signer(Protocol):
    """Makes a signed note of a text."""

    def sign(self, text: bytes) -> bytes: ...


def write_archive(files: Mapping[str, bytes], signer: Signer) -> bytes:
    """The pack with these files and their manifest."""
    lines = [_TITLE, *(f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in sorted(files.items()))]
    manifest = signer.sign("".join(f"{line}\n" for line in lines).encode())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [(MANIFEST, manifest), *sorted(files.items())]:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def read_archive(data: bytes, keys: tuple[VerifierKey, ...]) -> tuple[dict[str, bytes], str]:
    """Every file but the manifest, and the name of the key that signed it. PackRefused for anything that the manifest
    does not name, names differently, or that nobody of `keys` has signed."""
    files = _unzip(data)
    manifest = files.pop(MANIFEST, None)
    if manifest is None:
        raise PackRefused("the pack has no manifest", hint="ask for the pack again; a part of it proves nothing")
    try:
        opened = open_note(manifest, keys)
    except NoteRefused as error:
        raise PackRefused(
            f"the manifest is not signed by the log: {error.fact}",
            code="pack.unsigned",
            hint="verify with the trust policy of the installation that made it",
        ) from None
    title, *lines = opened.text.decode().splitlines()
    named = dict(_named(line) for line in lines)
    if title != _TITLE or len(named) != len(lines):
        raise PackRefused("the manifest has another form", hint="this version reads packs of form 1")
    if named.keys() != files.keys():
        odd = sorted(named.keys() ^ files.keys())[0]
        raise PackRefused(f"pack and manifest disagree about `{odd}`", code="pack.changed")
    for name, digest in named.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise PackRefused(f"`{name}` was changed after the pack was made", code="pack.changed")
    return files, opened.verified[0].key.name


def _named(line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise PackRefused("the manifest has another form", hint="this version reads packs of form 1")
    return match[2], match[1]


def _unzip(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = MAX_PACK_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                left -= info.file_size
                if left < 0 or info.filename in files:
                    raise PackRefused("the archive is larger than a pack can be, or has a file twice")
                with archive.open(info) as file:
                    # What the archive says of a size is not believed.
                    files[info.filename] = file.read(info.file_size + 1)
                if len(files[info.filename]) != info.file_size:
                    raise PackRefused("the archive lies about a file's size")
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise PackRefused(f"this is no pack: {error}", hint="ask for the pack again") from None
    except Exception as error:  # zlib.error has no public base
        if isinstance(error, PackRefused):
            raise
        raise PackRefused("this is no pack: it can't be unpacked", hint="ask for the pack again") from None
    return files
