"""The spool as a file: whole lines, one owner, bounds, damage, and a process that dies at its work."""

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
from calls.ingest.spool import NotOurs, Spool, abandoned

A, B, C = b"first\n", b"second\n", b"third\n"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "journal" / "1-abcd.log")
    yield opened
    opened.close(delete=False)


def everything(spool: Spool, offset: int = 0) -> list[bytes]:
    lines, behind = spool.read(offset, 10_000)
    return lines + (everything(spool, behind) if lines else [])


def test_it_is_for_our_eyes_only(spool: Spool) -> None:
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700


def test_it_gives_back_what_it_took_in_order(spool: Spool) -> None:
    assert all(spool.append(line) for line in (A, B, C))
    lines, behind = spool.read(0, 2)
    assert lines == [A, B]
    assert spool.read(behind, 2) == ([C], spool.size)
    assert spool.read(spool.size, 2) == ([], spool.size)
    assert (spool.appended, spool.dropped) == (3, 0)


def test_it_reads_what_is_more_than_one_helping(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "READ_BYTES", 10)
    for line in (A, B, C):
        spool.append(line)
    assert everything(spool) == [A, B, C]


def test_it_hands_out_as_damage_what_is_too_long_for_a_line(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "READ_BYTES", 8)
    spool.append(b"x" * 20 + b"\n")
    spool.append(A)
    assert b"".join(everything(spool)) == b"x" * 20 + b"\n" + A
    assert everything(spool)[-1] == A


def test_many_threads_never_mix_their_lines(spool: Spool) -> None:
    def work(name: int) -> None:
        for number in range(200):
            spool.append(b"%d-%d-%s\n" % (name, number, b"x" * 50))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lines = everything(spool)
    assert len(set(lines)) == 1600
    for name in range(8):  # each thread's own order is kept
        mine = [line for line in lines if line.startswith(b"%d-" % name)]
        assert [int(line.split(b"-")[1]) for line in mine] == list(range(200))


def test_only_one_can_own_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "LOCK_SECONDS", 0.02)
    with pytest.raises(NotOurs):
        Spool(spool.path)
    with pytest.raises(NotOurs):
        Spool(spool.path, create=False)


def test_a_file_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("not a folder")
    with pytest.raises(OSError):
        Spool(tmp_path / "journal" / "1.log")


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "1.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as caught:
        Spool(tmp_path / "1.log")
    assert caught.value.errno == errno.ELOOP


# Bounds


def test_beyond_its_cap_it_drops_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "1.log", cap_bytes=20)
    assert [spool.append(b"123456789\n") for _ in range(4)] == [True, True, False, False]
    assert (spool.appended, spool.dropped) == (2, 2)
    assert len(caplog.records) == 1  # said once
    assert spool.cut(spool.size) == 0
    assert spool.append(A)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    spool.close(delete=True)


def test_near_its_cap_it_keeps_the_room_for_what_matters(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "1.log", cap_bytes=100)
    for _ in range(9):
        assert spool.append(b"123456789\n", minor=True)
    assert not spool.append(b"123456789\n", minor=True)
    assert spool.append(b"123456789\n")
    assert not spool.append(b"123456789\n")
    spool.close(delete=True)


def test_a_full_disk_costs_lines_and_nothing_else(spool: Spool) -> None:
    """RLIMIT_FSIZE: the kernel takes half a line, then none, as a full disk does."""
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
    assert everything(spool) == [A, b"sec\n", C]  # the torn line spoils itself alone


def test_a_line_that_stays_torn_is_handed_out_as_damage(spool: Spool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        spool.append(B)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert spool.read(0, 10) == ([b"sec"], 3)
    spool.append(C)
    assert spool.read(3, 10) == ([b"\n", C], spool.size)


def test_when_closed_it_drops(spool: Spool) -> None:
    spool.close(delete=False)
    spool.close(delete=False)
    assert not spool.append(A)
    assert spool.dropped == 1


# Cutting


def test_it_forgets_what_was_applied_but_for_what_it_is_told_to_keep(spool: Spool) -> None:
    for line in (A, B, C):
        spool.append(line)
    behind = spool.cut(spool.size, keep=[B])
    assert (behind, spool.size) == (len(B), len(B))
    spool.append(C)
    assert everything(spool) == [B, C]
    assert spool.read(behind, 10)[0] == [C]


def test_it_forgets_nothing_that_was_not_applied(spool: Spool) -> None:
    spool.append(A)
    offset = spool.size
    spool.append(B)
    assert spool.cut(offset) == offset
    assert everything(spool) == [A, B]


def test_it_survives_a_cut_that_the_disk_refuses(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.append(A)
    os.close(spool._fd)
    spool._fd = os.open(spool.path, os.O_RDONLY)  # not to be truncated
    assert spool.cut(spool.size) == spool.size == len(A)
    assert "cannot be cut" in caplog.text


# Quarantine


def test_what_cannot_become_a_row_is_kept_beside_it(spool: Spool) -> None:
    assert spool.quarantine(b"torn")
    assert spool.quarantine(A)
    path = spool.path.with_suffix(".quarantine")
    assert path.read_bytes() == b"torn\n" + A
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_quarantine_of_a_folder_is_bounded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "QUARANTINE_CAP_BYTES", 20)
    (spool.path.parent / "older.quarantine").write_bytes(b"0123456789")
    assert spool.quarantine(A)
    assert not spool.quarantine(A)


# Spools of the dead


def die(path: Path, lines: int) -> None:
    """Another process takes lines, says so after each, and is killed in the middle of its work."""
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, cwd=root)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(done.stdout.splitlines()) == lines


@pytest.mark.slow
def test_what_a_killed_process_had_acknowledged_is_there(tmp_path: Path) -> None:
    die(tmp_path / "2-dead.log", 500)
    (found,) = abandoned(tmp_path)
    assert everything(found) == [b"line %d\n" % number for number in range(500)]
    found.close(delete=True)
    assert list(abandoned(tmp_path)) == []


def test_the_oldest_comes_first_and_the_living_are_left_alone(spool: Spool) -> None:
    folder = spool.path.parent
    for name, age in (("b", 50), ("a", 10), ("c", 90)):
        path = folder / f"{name}.log"
        path.write_bytes(A)
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    found = list(abandoned(folder))
    assert [each.path.stem for each in found] == ["c", "b", "a"]
    assert list(abandoned(folder)) == []  # ours now
    for each in found:
        each.close(delete=False)
    assert spool.append(A)


def test_a_torn_tail_does_not_swallow_the_next_line(tmp_path: Path) -> None:
    (tmp_path / "1.log").write_bytes(A + b"sec")
    (found,) = abandoned(tmp_path)
    assert everything(found) == [A, b"sec"]
    found.append(C)
    assert everything(found) == [A, b"sec\n", C]
    found.close(delete=True)


def test_a_file_that_is_gone_when_we_come_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dangling.log").symlink_to(tmp_path / "nowhere")
    assert list(abandoned(tmp_path)) == []
    (tmp_path / "dangling.log").unlink()
    path = tmp_path / "1.log"
    path.write_bytes(A)
    finder = abandoned(tmp_path)
    (tmp_path / "2.log").write_bytes(A)
    for found in finder:  # both were listed; whoever is faster removes one
        assert found.path in (path, tmp_path / "2.log")
        for other in tmp_path.glob("*.log"):
            other.unlink()
        found.close(delete=True)


def test_a_maker_whose_empty_file_was_removed_makes_another(tmp_path: Path) -> None:
    """One who looks for abandoned files may lock a new one before its maker does, and remove it."""
    path = tmp_path / "1.log"
    path.touch()
    (reader,) = abandoned(tmp_path)
    threading.Timer(0.05, reader.close, kwargs={"delete": True}).start()
    made = Spool(path)
    assert made.append(A)
    assert path.read_bytes() == A
    made.close(delete=True)
