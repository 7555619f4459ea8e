"""The home directory: one installation's secrets, state, sockets and logs (the map is in ARCHITECTURE.md)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.identity import certificate, fits, new_key, read_key
from sekisho.kernel.errors import SekishoError

# unix(7): sun_path holds 108 bytes, the last one a NUL. The longest name that we put there is below.
_SOCKET_PATH_MAX_BYTES = 107
_LONGEST_SOCKET = "run/worker-9999.sock"


class HomeRefused(SekishoError):
    """The home directory can't be used as it is."""

    code = "home.unusable"


class Home(msgspec.Struct, frozen=True):
    """Where everything of one installation lies. `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: Path | str) -> Home:
        return cls(Path(os.path.abspath(path)))

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def admin_token(self) -> Path:
        return self.secrets / "admin_token"

    @property
    def gateway_token(self) -> Path:
        return self.secrets / "gateway_token"

    @property
    def metrics_token(self) -> Path:
        """What a Prometheus server shows where the console listens beyond this machine."""
        return self.secrets / "metrics_token"

    @property
    def control_key(self) -> Path:
        return self.secrets / "control.key"

    @property
    def control_pub(self) -> Path:
        return self.root / "control.pub"

    @property
    def sealing_key(self) -> Path:
        return self.secrets / "sealing.key"

    @property
    def log_key(self) -> Path:
        return self.secrets / "log.key"

    @property
    def log_pub(self) -> Path:
        return self.root / "log.pub"

    @property
    def ledger(self) -> Path:
        return self.root / "log"

    @property
    def sequencer_socket(self) -> Path:
        return self.run / "sequencer.sock"

    @property
    def gateway_certificate(self) -> Path:
        """With this and its key the gateways of this installation show themselves to sites' agents."""
        return self.secrets / "gateway.crt"

    @property
    def gateway_key(self) -> Path:
        return self.secrets / "gateway.key"

    @property
    def demo_keys(self) -> Path:
        return self.secrets / "demo_keys.json"

    def site(self, site: str) -> Path:
        """The directory of a demonstration site's agent."""
        return self.root / "sites" / site

    @property
    def agents_socket(self) -> Path:
        return self.run / "agents.sock"

    @property
    def table(self) -> Path:
        return self.root / "table.bin"

    @property
    def limits(self) -> Path:
        return self.root / "limits.shm"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def supervisor_file(self) -> Path:
        return self.run / "supervisor.json"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def ready_file(self) -> Path:
        return self.run / "ready.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def journal(self, worker: int) -> Path:
        return self.root / "journal" / f"w{worker}"

    def worker_spec(self, worker: int) -> Path:
        return self.run / f"worker-{worker}.json"

    def worker_socket(self, worker: int) -> Path:
        return self.run / f"worker-{worker}.sock"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"


def create(home: Home) -> None:
    """Make the directories that are missing, all of them for the owner alone (the route table carries salts, the
    journal names tenants), and tighten what is looser. HomeRefused when that can't be."""
    longest = len(os.fsencode(home.root / _LONGEST_SOCKET))
    if longest > _SOCKET_PATH_MAX_BYTES:
        over = longest - _SOCKET_PATH_MAX_BYTES
        raise HomeRefused(
            f"the path of the home directory {home.root} is {over} bytes too long for Unix sockets",
            code="home.path_too_long",
            hint="choose a shorter one with --home",
        )
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (home.root, home.secrets, home.run, home.logs, home.root / "journal"):
            directory.mkdir(mode=0o700, exist_ok=True)
            _require_own(directory)
            directory.chmod(0o700)
        # Permission bits don't tell it all (read-only mounts, quotas): only a write proves that one can write.
        with tempfile.NamedTemporaryFile(dir=home.run) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise refusal(home.root, error) from None


def _require_own(directory: Path) -> None:
    """Root may write anywhere, but the owner of a directory may replace what lies in it: our keys, our database."""
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        raise HomeRefused(
            f"{directory} belongs to another user (uid {owner}), who could read and replace the secrets in it",
            code="home.other_owner",
            hint="run `sekisho` as that user, choose another --home, or give it to this user with `chown -R`",
        )


def refusal(path: Path, error: OSError) -> HomeRefused:
    """An operating system error about the home directory as a fact, a code and a next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HomeRefused(
            f"the disk under {path} is full",
            code="home.disk_full",
            hint="free some space there, or choose another place with --home",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return HomeRefused(
            f"the home directory {path} is not writable ({error.strerror})",
            code="home.not_writable",
            hint="choose another with --home, or give this user the right to write there",
        )
    return HomeRefused(
        f"the home directory {path} can't be used: {error.strerror or error}",
        hint="choose another with --home",
    )


def require_space(home: Home, *, needed_bytes: int) -> None:
    """Refuse to start on a disk on which the journals would not fit: guarded passages would get 503 soon."""
    stats = os.statvfs(home.root)
    free_bytes = stats.f_bavail * stats.f_frsize
    if free_bytes < needed_bytes:
        raise HomeRefused(
            f"{home.root} has {free_bytes >> 20} MiB free, the journals need {needed_bytes >> 20} MiB to start",
            code="home.disk_full",
            hint="free some space there, or choose another place with --home",
        )


def lock(home: Home) -> int:
    """Hold the home directory for this process; the descriptor holds the lock until it is closed or we die.

    The lock lies on the `run` directory itself, so there is no lock file that could be deleted or replaced.
    """
    descriptor = os.open(home.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise HomeRefused(
            f"another supervisor runs on {home.root}",
            code="home.in_use",
            hint="look at it with `sekisho status`, stop it with `sekisho down`, or choose another --home",
        ) from None
    return descriptor


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """A reader sees the old bytes or the new ones, never a part, and never with other rights than `mode`."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def ensure_secrets(home: Home) -> None:
    """Make at first start what is secret; keep what is there, for owner's eyes only."""
    try:
        _once(home.admin_token, lambda: _token("sk-admin-"))
        _once(home.gateway_token, lambda: _token("sk-gw-"))
        _once(home.metrics_token, lambda: _token("sk-metrics-"))
        _once(home.control_key, _new_private_key)
        _once(home.log_key, _new_private_key)
        _once(home.sealing_key, lambda: secrets.token_hex(32).encode() + b"\n")
        ensure_identity(home.gateway_key, home.gateway_certificate, name="sekisho gateway")
        public = _load_private_key(home.control_key).public_key().public_bytes_raw()
        # Always written anew: it follows from the private key, and a stale copy would stop every gateway.
        write_atomic(home.control_pub, public.hex().encode() + b"\n", mode=0o644)
        public = _load_private_key(home.log_key).public_key().public_bytes_raw()
        write_atomic(home.log_pub, public.hex().encode() + b"\n", mode=0o644)
    except OSError as error:
        raise refusal(home.secrets, error) from None


def ensure_demo_keys(home: Home, tenants: Iterable[str]) -> dict[str, str]:
    """A plain key for each of these tenants (tenant → key): made once, kept afterwards. For demonstrations only:
    nobody else's key is ever kept in the clear, and the key of a tenant that is not named goes."""
    keys: dict[str, str] = {}
    try:
        if home.demo_keys.exists():
            keys = msgspec.json.decode(home.demo_keys.read_bytes(), type=dict[str, str])
        wanted = {tenant: keys.get(tenant) or f"sk-{tenant}-{secrets.token_urlsafe(32)}" for tenant in tenants}
        if wanted != keys:
            write_atomic(home.demo_keys, json.dumps(wanted, indent=1).encode() + b"\n")
    except OSError as error:
        raise refusal(home.demo_keys, error) from None
    except msgspec.DecodeError:
        raise _damaged(home.demo_keys) from None
    return wanted


def ensure_operator_key(home: Home, operator: str) -> Ed25519PrivateKey:
    """With which the demonstration signs what an operator of its sites would declare: made once."""
    file = home.secrets / "operators" / f"{operator}.key"
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        _once(file, _new_private_key)
    except OSError as error:
        raise refusal(file, error) from None
    return _load_private_key(file)


def ensure_identity(key_file: Path, certificate_file: Path, *, name: str) -> None:
    """A P-256 key and its certificate, made once. A certificate that is not this key's is made anew."""
    _once(key_file, new_key)
    key = read_key(key_file.read_bytes())
    if key is None:
        raise _damaged(key_file)
    if not certificate_file.exists() or not fits(certificate_file.read_bytes(), key):
        write_atomic(certificate_file, certificate(key, name=name))


def _once(path: Path, make: Callable[[], bytes]) -> None:
    if path.exists():
        if not path.read_bytes().strip():
            raise _damaged(path)
        path.chmod(0o600)
    else:
        write_atomic(path, make())


def _token(prefix: str) -> bytes:
    return f"{prefix}{secrets.token_urlsafe(32)}\n".encode()


def _new_private_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_sealing_key(home: Home) -> bytes:
    """The 32 bytes that protect tenants' data keys at rest. HomeRefused when the file is damaged."""
    try:
        key = bytes.fromhex(home.sealing_key.read_text().strip())
    except OSError as error:
        raise refusal(home.sealing_key, error) from None
    except ValueError:
        raise _damaged(home.sealing_key) from None
    if len(key) != 32:
        raise _damaged(home.sealing_key)
    return key


def load_log_key(home: Home) -> Ed25519PrivateKey:
    """The key that signs the checkpoints of this installation's log. HomeRefused when it is damaged or not there."""
    try:
        return _load_private_key(home.log_key)
    except OSError as error:
        raise refusal(home.log_key, error) from None


def _load_private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path)
    return key


def _damaged(path: Path) -> HomeRefused:
    return HomeRefused(
        f"{path} is damaged",
        code="home.secret_damaged",
        hint="put back a copy of it, or move it away: a new one is made at the next start",
    )
