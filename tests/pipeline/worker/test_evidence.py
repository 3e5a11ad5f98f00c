"""When is a file that is not there believed to be gone?"""

from pathlib import Path
from threading import Event

import pytest

from coat.manifests.audio.clip import AudioError
from coat.manifests.errors import ReadFault
from coat.pipeline.decoding.evidence import SENT, WITNESSES, Evidence, Patience, Witnesses


def evidence(*read: Path, accept_missing: bool = False, patience: float = 0.0) -> Evidence:
    witnesses = Witnesses()
    witnesses.add(map(str, read))
    return Evidence(Patience(patience, Event()), witnesses, accept_missing)


def missing(path: Path):
    def decode(data: bytes | None) -> None:
        raise AudioError("missing", f"{path}: no such file")

    return decode


def test_a_file_among_others_is_missing(tmp_path: Path) -> None:
    (tmp_path / "b.wav").touch()
    for found in (evidence(), evidence(tmp_path / "b.wav")):
        with pytest.raises(AudioError, match="no such file"):
            found.believed(str(tmp_path / "a.wav"), missing(tmp_path / "a.wav"))


@pytest.mark.parametrize("folder", ["empty", "none"])
def test_a_folder_without_files_proves_nothing(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = tmp_path / folder / "a.wav"
    with pytest.raises(ReadFault, match="is it mounted here"):
        evidence().believed(str(path), missing(path))
    with pytest.raises(AudioError):
        evidence(accept_missing=True).believed(str(path), missing(path))


def test_what_was_read_before_and_is_gone_too_doubts_it(tmp_path: Path) -> None:
    (tmp_path / "README").touch()
    with pytest.raises(ReadFault, match=r"b\.wav is gone too"):
        evidence(tmp_path / "b.wav").believed(str(tmp_path / "a.wav"), missing(tmp_path / "a.wav"))


def test_a_share_that_comes_back_in_time_is_waited_for() -> None:
    tries = []

    def decode(data: bytes | None) -> str:
        tries.append(data)
        if len(tries) < 4:
            raise ReadFault("not now")
        return "heard"

    assert evidence(patience=60.0).believed("a.wav", decode) == "heard"


def test_patience_is_out_for_all_reads_of_a_unit() -> None:
    patience = Patience(0.1, Event())
    tries = []

    def read() -> None:
        tries.append(1)
        raise ReadFault("not now")

    with pytest.raises(ReadFault):
        patience.retried(read)
    assert len(tries) > 1
    tries.clear()
    with pytest.raises(ReadFault):
        patience.retried(read)
    assert len(tries) == 1


def test_witnesses_are_few_and_near() -> None:
    witnesses = Witnesses()
    witnesses.add(f"/data/{i}/a.wav" for i in range(3 * WITNESSES))
    assert len(witnesses.by_folder) == WITNESSES
    last = 3 * WITNESSES - 1
    assert witnesses.nearest(f"/data/{last}/z.wav") == f"/data/{last}/a.wav"
    assert len(witnesses.of(f"/data/{i}/z.wav" for i in range(3 * WITNESSES))) <= SENT
    witnesses.add(["s3://bucket/x/a.wav"])
    assert witnesses.nearest("s3://bucket/y/b.wav") == "s3://bucket/x/a.wav"
    assert Witnesses().nearest("a.wav") is None
