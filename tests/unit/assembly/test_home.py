"""The home directory: who may read it, what is made once, and how it is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sekisho.assembly import home as homes
from sekisho.assembly.home import Home, HomeRefused


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.at(tmp_path / "home")
    homes.create(made)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_read_anything(home: Home) -> None:
    homes.ensure_secrets(home)
    homes.ensure_demo_keys(home, ["hospital"])
    for directory in (home.root, home.secrets, home.run, home.logs, home.root / "journal"):
        assert mode(directory) == 0o700
    for secret in (home.admin_token, home.gateway_token, home.control_key, home.demo_keys):
        assert mode(secret) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
@pytest.mark.parametrize("part", ["root", "secrets", "logs"])
def test_a_home_that_belongs_to_somebody_else_is_refused(home: Home, part: str) -> None:
    os.chown(getattr(home, part), 65534, 65534)
    with pytest.raises(HomeRefused) as refused:
        homes.create(home)
    assert refused.value.code == "home.other_owner"
    assert "chown" in (refused.value.hint or "")
    assert not home.admin_token.exists()


def test_what_is_looser_is_tightened(home: Home) -> None:
    homes.ensure_secrets(home)
    home.secrets.chmod(0o755)
    home.admin_token.chmod(0o644)
    homes.create(home)
    homes.ensure_secrets(home)
    assert mode(home.secrets) == 0o700
    assert mode(home.admin_token) == 0o600


def test_secrets_are_made_once_and_the_public_key_follows_the_private_one(home: Home) -> None:
    homes.ensure_secrets(home)
    first = {path: path.read_bytes() for path in (home.admin_token, home.gateway_token, home.control_key)}
    home.control_pub.write_text("00" * 32)
    homes.ensure_secrets(home)
    assert {path: path.read_bytes() for path in first} == first
    private = load_pem_private_key(home.control_key.read_bytes(), password=None)
    assert home.control_pub.read_text().strip() == private.public_key().public_bytes_raw().hex()


def test_two_homes_share_no_secret(tmp_path: Path) -> None:
    tokens = set()
    for name in ("a", "b"):
        made = Home.at(tmp_path / name)
        homes.create(made)
        homes.ensure_secrets(made)
        tokens |= {made.admin_token.read_text(), made.gateway_token.read_text(), made.control_pub.read_text()}
    assert len(tokens) == 6
    assert min(map(len, tokens)) > 40


def test_demo_keys_stay_and_go_with_their_tenants(home: Home) -> None:
    first = homes.ensure_demo_keys(home, ["hospital", "maker"])
    second = homes.ensure_demo_keys(home, ["hospital", "developer"])
    assert list(second) == ["hospital", "developer"]
    assert second["hospital"] == first["hospital"]
    assert first["maker"] not in home.demo_keys.read_text()


@pytest.mark.parametrize(("name", "content"), [("admin_token", b"\n"), ("control_key", b"-----BEGIN nothing")])
def test_a_damaged_secret_is_refused_and_left_as_it_is(home: Home, name: str, content: bytes) -> None:
    homes.ensure_secrets(home)
    path = getattr(home, name)
    path.write_bytes(content)
    with pytest.raises(HomeRefused) as refused:
        homes.ensure_secrets(home)
    assert refused.value.code == "home.secret_damaged"
    assert refused.value.hint
    assert path.read_bytes() == content


def test_damaged_demo_keys_are_refused(home: Home) -> None:
    home.demo_keys.write_text("{")
    with pytest.raises(HomeRefused) as refused:
        homes.ensure_demo_keys(home, ["hospital"])
    assert refused.value.code == "home.secret_damaged"


def test_a_second_holder_is_refused_until_the_first_lets_go(home: Home) -> None:
    held = homes.lock(home)
    with pytest.raises(HomeRefused) as refused:
        homes.lock(home)
    assert refused.value.code == "home.in_use"
    os.close(held)
    os.close(homes.lock(home))


def test_a_child_does_not_hold_the_lock(home: Home) -> None:
    held = homes.lock(home)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.close(held)
        os.close(homes.lock(home))
        child.communicate(b"\n")


def test_a_path_too_long_for_its_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    with pytest.raises(HomeRefused) as refused:
        homes.create(Home.at(deep))
    assert refused.value.code == "home.path_too_long"
    assert not deep.parent.exists()


def test_a_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeRefused) as refused:
        homes.create(Home.at(tmp_path / "home"))
    assert refused.value.code == "home.unusable"


@pytest.mark.skipif(not Path("/proc/sys/kernel").is_dir(), reason="needs Linux's /proc")
def test_a_home_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    # Root may write anywhere but here: the directory is read-only for everybody.
    place = Path("/proc/sys/kernel/home") if os.geteuid() == 0 else tmp_path / "read-only" / "home"
    if os.geteuid() != 0:
        (tmp_path / "read-only").mkdir(mode=0o500)
    with pytest.raises(HomeRefused) as refused:
        homes.create(Home.at(place))
    assert refused.value.code in ("home.not_writable", "home.unusable")
    assert "--home" in refused.value.hint


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        made = Home.at(small / "home")
        homes.create(made)
        (small / "filler").write_bytes(bytes(1))
        with pytest.raises(OSError, match="No space left"):
            (small / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(HomeRefused) as refused:
            homes.create(made)
        assert refused.value.code == "home.disk_full"
        with pytest.raises(HomeRefused) as refused:
            homes.ensure_secrets(made)
        assert refused.value.code == "home.disk_full"
    finally:
        subprocess.run(["umount", small], check=True)


def test_too_little_room_for_the_journals_is_refused(home: Home) -> None:
    homes.require_space(home, needed_bytes=1)
    with pytest.raises(HomeRefused) as refused:
        homes.require_space(home, needed_bytes=1 << 62)
    assert refused.value.code == "home.disk_full"


def test_an_atomic_write_replaces_all_and_leaves_no_trace_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    homes.write_atomic(path, b"one")
    homes.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert mode(path) == 0o600
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        homes.write_atomic(tmp_path / "directory", b"")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "file"]
