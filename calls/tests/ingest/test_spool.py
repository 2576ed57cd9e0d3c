"""The spool's file: complete lines, one owner, bounds, damage, and a process that is killed."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from calls.ingest import spool as spool_module
from calls.ingest.spool import Spool, SpoolLocked, claim_abandoned

A, B, C = b"first\n", b"second\n", b"third\n"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "journal" / "1-abcd.log")
    yield opened
    opened.close(delete=False)


def read_all(spool: Spool, offset: int = 0) -> list[bytes]:
    lines, behind = spool.read(offset, 10_000)
    return lines + (read_all(spool, behind) if lines else [])


def test_only_the_owner_can_read_the_file(spool: Spool) -> None:
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700


def test_it_reads_lines_in_order(spool: Spool) -> None:
    assert all(spool.append(line) for line in (A, B, C))
    lines, behind = spool.read(0, 2)
    assert lines == [A, B]
    assert spool.read(behind, 2) == ([C], spool.size)
    assert spool.read(spool.size, 2) == ([], spool.size)
    assert (spool.appended, spool.dropped) == (3, 0)


def test_it_reads_more_than_one_chunk(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "READ_BYTES", 10)
    for line in (A, B, C):
        spool.append(line)
    assert read_all(spool) == [A, B, C]


def test_it_returns_a_line_that_is_too_long_in_pieces(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "READ_BYTES", 8)
    spool.append(b"x" * 20 + b"\n")
    spool.append(A)
    assert b"".join(read_all(spool)) == b"x" * 20 + b"\n" + A
    assert read_all(spool)[-1] == A


def test_lines_of_several_threads_are_not_mixed(spool: Spool) -> None:
    def append_lines(name: int) -> None:
        for number in range(200):
            spool.append(b"%d-%d-%s\n" % (name, number, b"x" * 50))

    threads = [threading.Thread(target=append_lines, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lines = read_all(spool)
    assert len(set(lines)) == 1600
    for name in range(8):  # each thread's own order is kept
        own = [line for line in lines if line.startswith(b"%d-" % name)]
        assert [int(line.split(b"-")[1]) for line in own] == list(range(200))


def test_only_one_process_can_own_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "LOCK_TIMEOUT_SECONDS", 0.02)
    with pytest.raises(SpoolLocked):
        Spool(spool.path)
    with pytest.raises(SpoolLocked):
        Spool(spool.path, create=False)


def test_it_raises_when_the_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("not a folder")
    with pytest.raises(OSError):
        Spool(tmp_path / "journal" / "1.log")


def test_it_does_not_follow_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "1.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as caught:
        Spool(tmp_path / "1.log")
    assert caught.value.errno == errno.ELOOP


# Bounds


def test_it_drops_and_counts_lines_beyond_its_cap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "1.log", cap_bytes=20)
    assert [spool.append(b"123456789\n") for _ in range(4)] == [True, True, False, False]
    assert (spool.appended, spool.dropped) == (2, 2)
    assert len(caplog.records) == 1  # logged once
    assert spool.truncate(spool.size) == 0
    assert spool.append(A)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    spool.close(delete=True)


def test_it_drops_low_priority_lines_near_its_cap(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "1.log", cap_bytes=100)
    for _ in range(9):
        assert spool.append(b"123456789\n", low_priority=True)
    assert not spool.append(b"123456789\n", low_priority=True)
    assert spool.append(b"123456789\n")
    assert not spool.append(b"123456789\n")
    spool.close(delete=True)


def test_a_full_disk_drops_lines_without_raising(spool: Spool) -> None:
    """With RLIMIT_FSIZE the kernel writes half a line, then nothing, like a full disk."""
    spool.append(A)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size + 3, hard))
    try:
        assert not spool.append(B)
        assert not spool.append(B)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.append(C)
    assert spool.dropped == 2
    assert read_all(spool) == [A, b"sec\n", C]  # only the torn line is lost


def test_it_returns_a_torn_tail(spool: Spool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        spool.append(B)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.read(0, 10) == ([b"sec"], 3)
    spool.append(C)
    assert spool.read(3, 10) == ([b"\n", C], spool.size)


def test_it_drops_lines_after_close(spool: Spool) -> None:
    spool.close(delete=False)
    spool.close(delete=False)
    assert not spool.append(A)
    assert spool.dropped == 1


# Truncation


def test_truncate_keeps_only_the_given_lines(spool: Spool) -> None:
    for line in (A, B, C):
        spool.append(line)
    behind = spool.truncate(spool.size, keep=[B])
    assert (behind, spool.size) == (len(B), len(B))
    spool.append(C)
    assert read_all(spool) == [B, C]
    assert spool.read(behind, 10)[0] == [C]


def test_truncate_does_nothing_before_the_end(spool: Spool) -> None:
    spool.append(A)
    offset = spool.size
    spool.append(B)
    assert spool.truncate(offset) == offset
    assert read_all(spool) == [A, B]


def test_a_failing_truncate_does_not_raise(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.append(A)
    os.close(spool._fd)
    spool._fd = os.open(spool.path, os.O_RDONLY)  # a read-only file cannot be truncated
    assert spool.truncate(spool.size) == spool.size == len(A)
    assert "cannot be truncated" in caplog.text


# Quarantine


def test_it_quarantines_a_line_in_a_file_of_its_own(spool: Spool) -> None:
    assert spool.quarantine(b"torn")
    assert spool.quarantine(A)
    path = spool.path.with_suffix(".quarantine")
    assert path.read_bytes() == b"torn\n" + A
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_quarantine_of_a_directory_is_bounded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "QUARANTINE_CAP_BYTES", 20)
    (spool.path.parent / "older.quarantine").write_bytes(b"0123456789")
    assert spool.quarantine(A)
    assert not spool.quarantine(A)


# Abandoned spools


def append_and_kill(path: Path, lines: int) -> None:
    """A process appends lines, acknowledges each, and is killed."""
    program = f"""
import os, signal, sys
from pathlib import Path
from calls.ingest.spool import Spool
spool = Spool(Path({str(path)!r}))
for number in range({lines}):
    assert spool.append(b"line %d\\n" % number)
    os.write(1, b"%d\\n" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(settings.BASE_DIR)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, cwd=root)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert len(result.stdout.splitlines()) == lines


@pytest.mark.slow
def test_acknowledged_lines_of_a_killed_process_can_be_read(tmp_path: Path) -> None:
    append_and_kill(tmp_path / "2-dead.log", 500)
    (found,) = claim_abandoned(tmp_path)
    assert read_all(found) == [b"line %d\n" % number for number in range(500)]
    found.close(delete=True)
    assert list(claim_abandoned(tmp_path)) == []


def test_it_claims_the_oldest_first_and_none_of_a_running_process(spool: Spool) -> None:
    folder = spool.path.parent
    for name, age in (("b", 50), ("a", 10), ("c", 90)):
        path = folder / f"{name}.log"
        path.write_bytes(A)
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    found = list(claim_abandoned(folder))
    assert [each.path.stem for each in found] == ["c", "b", "a"]
    assert list(claim_abandoned(folder)) == []  # this process owns them now
    for each in found:
        each.close(delete=False)
    assert spool.append(A)


def test_a_torn_tail_does_not_merge_with_the_next_line(tmp_path: Path) -> None:
    (tmp_path / "1.log").write_bytes(A + b"sec")
    (found,) = claim_abandoned(tmp_path)
    assert read_all(found) == [A, b"sec"]
    found.append(C)
    assert read_all(found) == [A, b"sec\n", C]
    found.close(delete=True)


def test_a_spool_that_another_process_removed_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nowhere")
    assert list(claim_abandoned(tmp_path)) == []
    (tmp_path / "dangling.log").unlink()
    path = tmp_path / "1.log"
    path.write_bytes(A)
    spools = claim_abandoned(tmp_path)
    (tmp_path / "2.log").write_bytes(A)
    claimed = []
    for found in spools:  # both were listed; another process removes one first
        assert found.path in (path, tmp_path / "2.log")
        for other in tmp_path.glob("*.log"):
            other.unlink()
        claimed.append(found.path)
        found.close(delete=True)
    assert len(claimed) == 1


def test_a_spool_that_cannot_be_opened_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one that another user's server has left."""
    (tmp_path / "1.log").mkdir()
    (tmp_path / "2.log").write_bytes(A)
    for _ in range(2):
        (found,) = claim_abandoned(tmp_path)
        assert found.path.name == "2.log"
        found.close(delete=False)
    assert caplog.text.count("1.log cannot be claimed: Is a directory") == 1


def test_a_closed_spool_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "1.log", create=True)
    spool.close(delete=True)
    assert not spool.append(A)
    assert "the spool drops entries: it is closed" in caplog.text


def test_a_new_file_that_was_removed_before_its_lock_is_created_again(tmp_path: Path) -> None:
    """Another process may find a new file before it is locked, take it for abandoned, and remove it."""
    path = tmp_path / "1.log"
    path.touch()
    (reader,) = claim_abandoned(tmp_path)
    threading.Timer(0.05, reader.close, kwargs={"delete": True}).start()
    created = Spool(path)
    assert created.append(A)
    assert path.read_bytes() == A
    created.close(delete=True)
