"""A machine that cannot read, told from a file that cannot be read. The faults are the kernel's own."""

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests.audio import faults
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import AudioFile, decode, probe
from coat.manifests.audio.source import Source, SourcePart
from coat.manifests.errors import DeviceFault, EnvironmentFault, ReadFault, RunError, Unreachable
from tests.disks import dead_share, failing_disk


@pytest.mark.parametrize("read", [decode, probe])
def test_a_share_that_went_away_is_no_error_of_its_files(read, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    path = tmp_path / "share" / "a.wav"
    soundfile.write(path, np.zeros(1600), 16000)
    with dead_share(tmp_path / "share"), pytest.raises(ReadFault, match=r"^[^\n]*Transport endpoint[^\n]*$"):
        read(str(path))
    assert read(str(path)).seconds == 0.1


@pytest.mark.parametrize(("name", "blocks"), [("a.wav", 200), ("a.flac", 200), ("a.ogg", 700)])
def test_a_disk_that_cannot_read_is_told_from_a_file_that_is_cut_short(name: str, blocks: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def fill(folder: Path) -> None:
        with soundfile.SoundFile(folder / name, "w", 16000, 1) as f:
            for _ in range(blocks):  # libsndfile overflows its stack where Vorbis is written at once
                f.write(rng.uniform(-0.5, 0.5, 10_000))
        assert (folder / name).stat().st_size > 3 * 2**19

    with failing_disk(tmp_path, fill) as disk:
        path = str(disk.folder / name)
        whole = decode(path).digest
        disk.fail(at=3 * 2**19)
        with pytest.raises((AudioError, ReadFault)) as e:
            decode(path)
        if isinstance(e.value, AudioError):  # what libsndfile makes of it
            assert e.value.reason in faults.DOUBTED
        with pytest.raises(ReadFault, match=r"Input/output error"):
            faults.second_look(path)
        disk.heal()
        held = faults.second_look(path)
        assert held is not None
        assert AudioFile(path, held.getvalue()).span().decode().digest == whole


def test_a_second_look_at_what_is_no_file_is_none(tmp_path: Path) -> None:
    assert faults.second_look(str(tmp_path)) is None
    assert faults.second_look("s3://bucket/a.wav") is None
    with pytest.raises(AudioError) as e:
        faults.second_look(str(tmp_path / "none.wav"))
    assert e.value.reason == "missing"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), ReadFault),
        (OSError(errno.EMFILE, "Too many open files"), ReadFault),
        (OSError(errno.ETIMEDOUT, "timed out"), ReadFault),
        (OSError(errno.ENODEV, "No such device"), ReadFault),
        (PermissionError(errno.EACCES, "Permission denied"), ReadFault),
        (PermissionError("ExpiredToken"), ReadFault),
        (OSError("without a number"), ReadFault),
        (FileNotFoundError(errno.ENOENT, "No such file"), AudioError),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), AudioError),
        (OSError(errno.ENAMETOOLONG, "File name too long"), AudioError),
        (ValueError("embedded null byte"), AudioError),
    ],
)
def test_only_what_a_name_explains_is_the_rows(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind), faults.reading("a.wav"):
        raise error


@pytest.mark.parametrize("kind", [EnvironmentFault, ReadFault, Unreachable, DeviceFault])
def test_faults_cross_process_borders(kind: type[RunError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a.wav: gone")))
    assert type(error) is kind
    assert str(error) == "a.wav: gone"
    assert isinstance(error, EnvironmentFault)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.wav"])
@pytest.mark.parametrize("read", [decode, probe])
def test_a_file_that_goes_away_while_it_is_looked_at_is_not_given_to_ffmpeg(
    name: str, read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are in memory by then; but which decoder gives the samples must not depend on the moment."""
    path = tmp_path / name
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    parts = Source.parts

    def gone(self: Source) -> list[SourcePart]:
        found = parts(self)
        path.rename(tmp_path / "away")
        return found

    monkeypatch.setattr(Source, "parts", gone)
    with pytest.raises(AudioError) as e:
        read(str(path))
    assert e.value.reason == "missing"
