"""Files and variables that a configuration names: whether they can be used, never what is in them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

from sekisho.assembly.config_gateway import RawListenTls
from sekisho.assembly.config_schema import RawSecret, RawUpstreamTls
from sekisho.federation.model import SecretRef, UpstreamTls
from sekisho.gateway.settings import ListenTls
from sekisho.runtime.toml import TomlPath

_MAX_SECRET_BYTES = 64 << 10
# Says at a path of the document what is wrong there, and how to mend it.
Say = Callable[[TomlPath, str, str], None]


class Files:
    """Looks at files relative to `directory`; what can't be used is refused or warned of at its line."""

    def __init__(self, directory: Path, *, refuse: Say, warn: Say) -> None:
        self._directory = directory
        self._refuse = refuse
        self._warn = warn

    def readable(self, text: str | None, path: TomlPath) -> str | None:
        """The absolute name of a file that can be read."""
        if not text:
            return None
        file = (self._directory / text).absolute()
        try:
            with file.open("rb"):
                return str(file)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._refuse(path, f"the file `{text}` can't be read: {reason}", "check the path and who may read it")
            return None

    def secret(self, raw: RawSecret | None, path: TomlPath) -> SecretRef | None:
        if raw is None:
            return None
        if (raw.file is None) == (raw.env is None):
            self._refuse(
                path,
                f"`{path[-1]}` needs exactly one of `file` and `env`",
                f'write it as {path[-1]} = {{ file = "…" }}',
            )
            return None
        if raw.env is not None:
            if not _one_line(os.environ.get(raw.env, "")):
                self._refuse(
                    (*path, "env"),
                    f"the environment variable `{raw.env}` is not set to one line of text",
                    "set it for the process that starts Sekisho",
                )
            return SecretRef(env=raw.env)
        file = self.readable(raw.file, (*path, "file"))
        if file is None:
            return None
        with Path(file).open("rb") as stream:
            content = stream.read(_MAX_SECRET_BYTES)
        if not _one_line(content.decode("latin-1")):
            self._refuse(
                (*path, "file"),
                f"the file `{raw.file}` is not one line of text",
                "put the secret in it, and nothing else",
            )
        if Path(file).stat().st_mode & 0o077:
            self._warn(
                (*path, "file"),
                f"other users of this machine can read the secret in `{raw.file}`",
                f"chmod 600 {raw.file}",
            )
        return SecretRef(file=file)

    def listen_tls(self, raw: RawListenTls | None) -> ListenTls | None:
        if raw is None:
            return None
        path = ("gateway", "tls")
        certificate = self.readable(raw.certificate, (*path, "certificate"))
        key = self.readable(raw.key, (*path, "key"))
        client_ca = self._authority(raw.client_ca, (*path, "client_ca"))
        if certificate is None or key is None:
            return None
        self._pair(certificate, key, path)
        return ListenTls(certificate=certificate, key=key, client_ca=client_ca)

    def upstream_tls(self, raw: RawUpstreamTls | None, path: TomlPath) -> UpstreamTls | None:
        if raw is None:
            return None
        ca = self._authority(raw.ca, (*path, "ca"))
        certificate = self.readable(raw.client_cert, (*path, "client_cert"))
        key = self.readable(raw.client_key, (*path, "client_key"))
        if (raw.client_cert is None) != (raw.client_key is None):
            self._refuse(path, "`client_cert` and `client_key` go together", "add the other one")
        elif certificate and key:
            self._pair(certificate, key, path)
        return UpstreamTls(
            ca=ca, server_name=raw.server_name, pins=tuple(raw.pins), client_cert=certificate, client_key=key
        )

    def _authority(self, text: str | None, path: TomlPath) -> str | None:
        file = self.readable(text, path)
        if file is not None:
            try:
                ssl.create_default_context().load_verify_locations(file)
            except ssl.SSLError:
                self._refuse(
                    path, f"the file `{text}` holds no certificate", "name a file with certificates in PEM form"
                )
        return file

    def _pair(self, certificate: str, key: str, path: TomlPath) -> None:
        try:
            # A password is never asked for: a process that starts by itself has nobody to ask.
            ssl.create_default_context().load_cert_chain(certificate, key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError):
            self._refuse(
                path,
                "certificate and key can't be used together",
                "name a PEM chain and its own key without password",
            )


def _one_line(text: str) -> bool:
    """Whether a secret can travel in an HTTP header: printable ASCII once the ends are trimmed."""
    trimmed = text.strip()
    return bool(trimmed) and trimmed.isascii() and trimmed.isprintable()
