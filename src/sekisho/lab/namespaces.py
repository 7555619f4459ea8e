"""Network namespaces and their TUN devices, by system calls alone (namespaces(7), netdevice(7), Linux's tuntap.rst).

A namespace is kept by a bind mount at /run/netns/sekisho-lab-<pid>-<site>, so `ip netns exec` finds it too. What a
laboratory that was killed leaves behind is removed by the next one (`sweep`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from sekisho.kernel.errors import SekishoError

T = TypeVar("T")
RUN = Path("/run/netns")
PREFIX = "sekisho-lab-"
_TUN = Path("/dev/net/tun")
_NAME = re.compile(rf"{PREFIX}(\d+)-.+")

_CLONE_NEWNET = 0x40000000  # sched.h
_MS_BIND = 0x1000  # mount(2)
_MNT_DETACH = 2  # umount2(2)
_TUNSETIFF = 0x400454CA  # if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)
_SIOCSIFADDR, _SIOCSIFDSTADDR = 0x8916, 0x8918
_SIOCSIFMTU, _SIOCSIFTXQLEN = 0x8922, 0x8943
_QUEUE_PACKETS = 5000  # between the kernel and the router; what the router does not fetch in time is counted there

_libc = ctypes.CDLL(None, use_errno=True)


class LabUnavailable(SekishoError):
    """This machine, or this user, can't have a laboratory."""

    code = "lab.unavailable"


class InterfaceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel counted at one interface (proc(5), /proc/net/dev). `sent` went into the line, `received` came
    out of it; dropped ones are in neither."""

    received_packets: int
    received_bytes: int
    received_dropped: int
    sent_packets: int
    sent_bytes: int
    sent_dropped: int


class Namespace(msgspec.Struct, kw_only=True):
    """One site: its name under /run/netns, and the router's ends of its lines by the site at the other end."""

    name: str
    address: str
    tuns: dict[str, int]
    devices: IO[str]  # /proc/net/dev of this namespace: it stays its own, whoever reads it

    @property
    def path(self) -> Path:
        return RUN / self.name

    def statistics(self) -> dict[str, InterfaceStatistics]:
        """By the site at the other end of the line."""
        self.devices.seek(0)
        found = read_devices(self.devices.read())
        return {peer: found[interface_name(peer)] for peer in self.tuns}


def interface_name(peer: str) -> str:
    return f"to-{peer}"


def unavailable() -> str | None:
    """Why there can be no laboratory here; None when there can."""
    if os.geteuid() != 0:
        return "the laboratory needs root: it makes network namespaces"
    if not _TUN.exists():
        return f"the laboratory needs {_TUN} (kernel module `tun`)"
    try:
        in_thread(_probe)
    except OSError as error:
        return f"this kernel or container forbids network namespaces or TUN devices: {error.strerror}"
    return None


def require() -> None:
    """LabUnavailable when there can be none."""
    reason = unavailable()
    if reason is not None:
        raise LabUnavailable(
            reason, hint="run it as root on Linux with /dev/net/tun, for instance: sudo sekisho lab …"
        )


def sweep() -> list[str]:
    """Remove the namespaces of laboratories that are no more; returns their names."""
    gone = []
    for path in sorted(RUN.glob(f"{PREFIX}*")) if RUN.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove(path)
            gone.append(path.name)
    return gone


def remove(path: Path) -> None:
    """Let a namespace go; it ends with its last process."""
    _libc.umount2(os.fsencode(path), _MNT_DETACH)  # EINVAL: the file was made, the mount was not
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def create(name: str, *, address: str, peers: Mapping[str, str], mtu: int) -> Namespace:
    """A namespace with one TUN device for each peer (site → its address). The caller closes the descriptors."""
    RUN.mkdir(parents=True, exist_ok=True)
    return in_thread(lambda: _create(name, address, peers, mtu))


def enter(path: Path) -> None:
    """Move this thread into a namespace."""
    with path.open("rb") as handle:
        _checked(_libc.setns(handle.fileno(), _CLONE_NEWNET), f"setns {path}")


def in_thread(work: Callable[[], T]) -> T:
    """Run what changes the namespace in a thread of its own: that of the caller stays as it is."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def read_devices(text: str) -> dict[str, InterfaceStatistics]:
    """/proc/net/dev: after two lines of headings, `name: 8 numbers received, 8 numbers sent`."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        found[name.strip()] = InterfaceStatistics(
            received_bytes=numbers[0],
            received_packets=numbers[1],
            received_dropped=numbers[3],
            sent_bytes=numbers[8],
            sent_packets=numbers[9],
            sent_dropped=numbers[11],
        )
    return found


def _create(name: str, address: str, peers: Mapping[str, str], mtu: int) -> Namespace:
    path = RUN / name
    path.touch(mode=0o444, exist_ok=False)
    tuns: dict[str, int] = {}
    try:
        _checked(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _checked(_libc.mount(source.encode(), os.fsencode(path), b"none", _MS_BIND, None), f"mount {path}")
        _no_ipv6()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _up(control, "lo")
            for peer, peer_address in peers.items():
                interface = interface_name(peer)
                tuns[peer] = _open_tun(interface)
                # The mask of a point-to-point device is /32: its peer is its only route (net/ipv4/devinet.c).
                _ioctl_address(control, _SIOCSIFADDR, interface, address)
                _ioctl_address(control, _SIOCSIFDSTADDR, interface, peer_address)
                _ioctl_number(control, _SIOCSIFMTU, interface, mtu)
                _ioctl_number(control, _SIOCSIFTXQLEN, interface, _QUEUE_PACKETS)
                _up(control, interface)
        devices = Path("/proc/thread-self/net/dev").open(encoding="ascii")  # noqa: SIM115 - lives as long as the namespace
    except BaseException:
        for descriptor in tuns.values():
            os.close(descriptor)
        remove(path)
        raise
    return Namespace(name=name, address=address, tuns=tuns, devices=devices)


def _probe() -> None:
    _checked(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")
    os.close(_open_tun("probe"))


def _no_ipv6() -> None:
    """Neighbour discovery would put packets on every line that nobody asked for: a zero must be a zero."""
    for which in ("all", "default"):
        with contextlib.suppress(OSError):  # a kernel without IPv6
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def _open_tun(interface: str) -> int:
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _ioctl_address(control: socket.socket, request: int, interface: str, address: str) -> None:
    packed = struct.pack("16sHH4s16x", interface.encode(), socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(control, request, packed)


def _ioctl_number(control: socket.socket, request: int, interface: str, number: int) -> None:
    fcntl.ioctl(control, request, struct.pack("16si20x", interface.encode(), number))


def _up(control: socket.socket, interface: str) -> None:
    asked = struct.pack("16sH22x", interface.encode(), 0)
    (flags,) = struct.unpack("16xH22x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), flags | _IFF_UP))


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
