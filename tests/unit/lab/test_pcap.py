from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.lab import pcap

HEAD = bytes([0x45, *bytes(11), 10, 88, 0, 1, 10, 88, 0, 5])


def test_what_is_written_is_read_again_and_from_where_one_was(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    with file.open("wb") as out:
        writer = pcap.Writer(out, snap_bytes=20)
        writer.add(1_795_000_000_123_456_789, HEAD + b"secret", 1500)
        writer.flush()
        ((offset, packet),) = pcap.read(file)
        assert packet == pcap.Packet(1_795_000_000_123_456_789, 1500, HEAD)
        assert (packet.source, packet.target) == ("10.88.0.1", "10.88.0.5")
        writer.add(2, b"\x60" + bytes(40), 41)
        writer.flush()
    ((_, later),) = pcap.read(file, offset)
    assert (later.at_ns, later.source, later.target) == (2, "", "")


def test_a_record_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    with file.open("wb") as out:
        pcap.Writer(out, snap_bytes=96).add(1, HEAD, 20)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        assert list(pcap.read(file)) == []


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(bytes(100))
    with pytest.raises(pcap.CaptureDamaged) as refused:
        list(pcap.read(file))
    assert refused.value.code == "lab.capture"
