"""Limits, memory, disks, locale: each made too small, in truth, for a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coat.doctor.finding import State
from coat.doctor.memory import Limits, control_group_limits, cpus, machine_memory, shared_memory
from coat.doctor.system import clock
from tests.disks import dead_share, mounted, remount
from tests.doctor.helpers import doctor
from tests.integration.helpers import ROOT

NOBODY = 64123  # a user without processes


@pytest.mark.parametrize(("files", "state", "status"), [(512, "broken", 1), (2048, "warning", 0)])
def test_too_few_open_files(files: int, state: State, status: int) -> None:
    found = doctor("limits", before=f"ulimit -n {files}", status=status)["open files"]
    assert (found["subject"], found["state"]) == ("limits", state)
    assert found["found"].startswith(f"{files} (at most {files})")
    assert "65536" in found["remedy"]


def test_what_the_shell_may_raise_is_raised_there() -> None:
    found = doctor("limits", before="ulimit -S -n 512; ulimit -H -n 4096", status=1)
    assert found["open files"]["remedy"] == "ulimit -n 4096"
    found = doctor("limits", before="ulimit -n 512", status=1)
    assert found["open files"]["remedy"].startswith("as root: ")


def test_too_few_processes_and_a_small_address_space() -> None:
    found = doctor("limits", before="ulimit -u 200; ulimit -v 30000000; ulimit -f 10000000", status=1)
    assert found["processes"]["state"] == "broken"
    assert found["address space"]["state"] == "warning"
    assert found["address space"]["remedy"] == "ulimit -v unlimited"
    assert found["size of a file"]["found"].startswith("10.2 GB")


def test_no_process_can_be_started() -> None:
    """What is looked at beside this process says so, and the rest is there. Root has no such limit."""
    if os.getuid():
        pytest.skip("another user, of no processes, is needed")
    readable = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", sys.executable, "-c", "import coat.cli.main"]
    if not shutil.which("setpriv") or subprocess.run(readable, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode:
        pytest.skip("another user may not read coat here")
    become = f"""ulimit -u 1; set -- setpriv --reuid={NOBODY} --clear-groups "$@" """
    found = doctor("audio", "limits", before=become, status=1)
    assert "no process could be started" in found["audio"]["found"]
    assert found["processes"]["state"] == "broken"


def test_a_tmpdir_that_is_not_there(tmp_path: Path) -> None:
    found = doctor("disks", TMPDIR=tmp_path / "gone", status=1)["TMPDIR"]
    assert f"TMPDIR={tmp_path}/gone is no folder" in found["found"]
    assert found["remedy"].startswith(f"mkdir -p {tmp_path}/gone")


def test_a_disk_that_refuses_and_a_disk_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "2m") as disk:
        remount(disk, "ro")
        found = doctor("disks", TMPDIR=disk, HF_HOME=disk, status=1)
        assert "cannot be written: Python takes" in found["TMPDIR"]["found"]
        assert "Read-only file system" in found["HF_HOME"]["found"]
        remount(disk, "rw")
        small = doctor("disks", HF_HOME=disk)["HF_HOME"]
        assert small["state"] == "warning"
        assert "2.1 MB are free, tmpfs: little, for weights from the hub" in small["found"]
        (disk / "fill").write_bytes(b"\0" * (2**21 - 4096))
        full = doctor("disks", HF_HOME=disk, status=1)["HF_HOME"]
        assert "No space left on device" in full["found"]
        remount(disk, "noexec")
        os.unlink(disk / "fill")
        assert "mounted noexec" in doctor("disks", TMPDIR=disk)["temporary files"]["found"]


def test_a_share_whose_server_died(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    with dead_share(tmp_path / "share"):
        found = doctor("disks", HF_HOME=tmp_path / "share", status=1)
    assert found["HF_HOME"]["state"] == "broken"
    assert found["current folder"]["state"] in ("ok", "warning")


def test_paths_too_long_for_sockets(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    assert "too long for them" in doctor("disks", TMPDIR=long)["Ray's sockets"]["found"]
    found = doctor("disks", RAY_TMPDIR=long, status=1)["Ray's sockets"]
    assert found["state"] == "broken"
    assert found["remedy"] == f"export RAY_TMPDIR=/tmp/ray-{os.getuid()}"


def test_a_locale_without_utf8() -> None:
    found = doctor("system", LC_ALL="C", PYTHONCOERCECLOCALE=0, PYTHONUTF8=0, status=1)
    assert found["locale"]["state"] == "broken"
    assert found["locale"]["remedy"] == "export LC_ALL=C.UTF-8"
    assert found["output"]["state"] == "broken"
    assert doctor("system", LC_ALL="C.UTF-8")["locale"]["state"] == "ok"


def test_a_clock_that_was_never_set() -> None:
    assert clock(0.0).state == "broken"
    assert clock(0.0).found.startswith("1970-01-01")


def test_shared_memory_by_its_size(tmp_path: Path) -> None:
    with mounted(tmp_path / "shm", "32m") as shm:
        assert shared_memory(shm, 8 * 10**9).state == "broken"
        remount(shm, "size=1g")
        found = shared_memory(shm, 8 * 10**9)
        assert found.state == "warning"
        assert "Ray's object store (2.4 GB)" in found.found
        assert found.remedy
        assert "--shm-size=2g" in found.remedy
        assert shared_memory(shm, 2 * 10**9).state == "ok"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own with 1 GB of memory."""
    made = Path(f"/sys/fs/cgroup/memory/coat-test-{os.getpid()}")
    try:
        made.mkdir()
        (made / "memory.limit_in_bytes").write_text(str(10**9))
    except OSError as e:
        pytest.skip(f"may not make a control group of version 1: {e}")
    yield made
    made.rmdir()


def test_a_container_with_little_memory(group: Path) -> None:
    found = doctor("memory", before=f"echo $$ > {group}/cgroup.procs", status=1)["memory"]
    assert found["state"] == "broken"
    assert found["found"].startswith("the container may use 1000.0 MB")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_control_groups(tmp_path: Path) -> None:
    """Files as the kernel's documentation describes them; the tightest of a group and those above it counts."""
    second = write(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/pods/memory.max": "4000000000\n",
            "sys/fs/cgroup/pods/memory.current": "1000000000\n",
            "sys/fs/cgroup/pods/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pods/one/memory.max": "max\n",
            "sys/fs/cgroup/pods/one/cpu.max": "150000 100000\n",
        },
    )
    assert control_group_limits(second) == Limits(4_000_000_000, 1_000_000_000, 1.5)
    first = write(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",  # of a container: its own root
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert control_group_limits(first) == Limits()
    write(
        first,
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n",
        },
    )
    assert control_group_limits(first) == Limits(3_000_000_000, 5, 2.5)
    assert control_group_limits(tmp_path) == Limits()
    shutil.rmtree(first)


def test_what_limits_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_memory(10**11, 9 * 10**10, Limits(4 * 10**9, 10**9)).state == "warning"
    assert machine_memory(10**11, 9 * 10**10, Limits(4 * 10**9, 3 * 10**9)).state == "broken"
    assert machine_memory(10**11, 9 * 10**10, Limits(10**12, 3 * 10**9)).state == "ok"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = cpus(Limits(cpus=0.5))
    assert (found.state, found.remedy) == (
        "warning",
        "export OMP_NUM_THREADS=1, and give --workers and --cpus-per-worker",
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cpus(Limits(cpus=0.5)).state == "ok"
