"""The storage layer and a whole extraction on each kind of store: a disk, S3 (moto), Azure (Azurite), and GCS.

GCS: obstore uses Google's XML API; the emulator of PyPI that was tried (`gcp-storage-emulator`) has the JSON API alone.
The XML API is S3's but for a few headers, so moto stands in for it here, behind a proxy
that rewords the condition of a put. Google's own tokens and error texts are not tested.
"""

import base64
import email.utils
import hashlib
import hmac
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coat.manifests import Manifest, storage
from coat.manifests.errors import InputError, NoAccess, RunError, Unreachable
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.chaos.azurite import ACCOUNT, KEY, serve_azure
from tests.chaos.s3 import Fault, FaultyS3, make_bucket
from tests.chaos.test_s3 import corpus, extract_s3, put_corpus
from tests.pipeline.extraction.test_extract import run

__all__ = ["corpus"]

GCS_ACCOUNT = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with serve_azure() as url:
        yield url


def make_container(url: str, name: str) -> None:
    """As Azure's shared keys want it signed: https://learn.microsoft.com/rest/api/storageservices/create-container"""
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    signed = (
        f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    )
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {"x-ms-date": date, "x-ms-version": version}
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(f"{url}/{ACCOUNT}/{name}?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request).close()


@pytest.fixture(params=["disk", "s3", "gs", "az"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder or bucket, told to coat by the environment alone."""
    name = f"b{uuid.uuid4().hex}"
    if request.param == "disk":
        return str(tmp_path / name)
    if request.param == "az":
        url = request.getfixturevalue("azure")
        make_container(url, name)
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        return f"az://{name}"
    server: FaultyS3 = request.getfixturevalue("s3")
    make_bucket(name)
    if request.param == "gs":
        account = tmp_path / "account.json"
        account.write_text(json.dumps({"gcs_base_url": server.url, **GCS_ACCOUNT}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
    return f"{request.param}://{name}"


def test_files_are_written_read_listed_and_removed_alike(place: str) -> None:
    data = bytes(range(256)) * 4096
    for name in ("a/b.bin", "a/c d+%ä.bin", "a/deep/er/x", "ab/y"):
        storage.write_bytes(f"{place}/f/{name}", data + name.encode())
    assert storage.list_names(f"{place}/f") == ["a", "ab"]
    assert storage.list_names(f"{place}/f/a") == ["b.bin", "c d+%ä.bin", "deep"]
    assert storage.list_names(f"{place}/none") == []
    found = {f.name: f for f in storage.list_files(f"{place}/f/a")}
    assert sorted(found) == ["b.bin", "c d+%ä.bin", "deep/er/x"]
    parts = storage.list_files(f"{place}/f", ["a/c", "ab"])
    assert sorted(f.name for f in parts) == sorted(f.name for f in storage.list_files(f"{place}/f"))
    assert len(parts) == 4

    url = f"{place}/f/a/b.bin"
    assert storage.read_bytes(url) == data + b"a/b.bin"
    assert storage.read_range(url, 1000, 1300) == data[1000:1300]
    assert storage.read_range(url, len(data), len(data) + 999) == b"a/b.bin"
    spans = [(0, 10), (500_000, 500_009), (12, 20)]
    assert storage.read_ranges(url, spans) == [data[a:b] for a, b in spans]
    with storage.open_stream(url) as f:
        assert f.read(3) == data[:3]
        f.seek(70_000)
        assert f.read() == data[70_000:] + b"a/b.bin"
    assert storage.size(url) == len(data) + 7
    assert list(storage.read_many([url, f"{place}/f/none", f"{place}/f/ab/y"])) == [
        data + b"a/b.bin",
        None,
        data + b"ab/y",
    ]

    stamp = found["b.bin"].stamp
    assert storage.info(url).stamp == stamp == storage.read_stamped(url)[1]
    storage.write_bytes(url, b"other")
    assert storage.info(url).stamp != stamp
    for call in (storage.read_bytes, storage.size, storage.open_stream):
        with pytest.raises(FileNotFoundError):
            call(f"{place}/f/none")
    assert [storage.exists(f"{place}/{n}") for n in ("f/a/b.bin", "f/a", "f/no", "f/a/b")] == [True, True, False, False]
    storage.remove(url)
    storage.remove(url)
    assert not storage.exists(url)
    storage.remove_folder(f"{place}/f/a", "c d+%ä.bin")
    storage.remove_tree(f"{place}/f/a")
    assert storage.list_names(f"{place}/f") == ["ab"]


def test_of_many_writers_one_puts(place: str) -> None:
    url = f"{place}/done.json"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: storage.put_if_absent(url, b"%d" % i), range(16)))
    assert sum(won) == 1
    assert storage.read_bytes(url) == b"%d" % won.index(True)
    assert not storage.put_if_absent(url, b"late")
    assert len(storage.list_files(place)) == 1  # no temporary file


def test_a_put_whose_answer_is_lost_is_known_to_be_ours(s3: FaultyS3) -> None:
    """The store has it, the connection breaks before it says so, and the driver's second try is refused."""
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    s3.faults.append(Fault("lost", "PUT", "done.json"))
    s3.log.clear()
    assert storage.put_if_absent(f"s3://{name}/done.json", b"mine")
    assert [status for method, _, status in s3.log if method == "PUT"] == [200, 412]
    s3.faults.append(Fault("lost", "PUT", "done.json"))
    assert not storage.put_if_absent(f"s3://{name}/done.json", b"another's")


def test_errors_are_of_one_kind(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    url = f"s3://{name}/a"
    storage.write_bytes(url, b"1")
    s3.faults[:] = [Fault(403, times=1000)]
    for call in (storage.read_bytes, storage.size, storage.open_stream, storage.remove):
        with pytest.raises(PermissionError, match="403"):
            call(url)
    for call in (storage.exists, storage.list_names, storage.list_files, storage.read_json):
        with pytest.raises(NoAccess, match=r"no access \(403"):
            call(url)
    with pytest.raises(InputError, match=f"^{url}: cannot be written there"):
        storage.write_bytes(url, b"2")
    s3.faults[:] = [Fault(503, times=100000)]
    monkeypatch.setenv("COAT_STORE_RETRY_S", "1")
    for call in (storage.exists, storage.read_bytes, storage.list_names, storage.list_files):
        with pytest.raises(Unreachable, match=r"does not answer \(503[^\n]*run again$"):
            call(url)
    s3.faults.clear()
    assert not storage.exists("s3://nobodys-bucket/a")
    assert storage.list_names("s3://nobodys-bucket/a") == []
    with pytest.raises(InputError, match="NoSuchBucket"):
        storage.write_bytes("s3://nobodys-bucket/a", b"")


def test_credentials_and_the_endpoint_of_a_profile(
    s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    for variable in [v for v in os.environ if v.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(InputError, match="no AWS credentials; set AWS_PROFILE"):
        storage.write_bytes(f"s3://{name}/a", b"")
    program = tmp_path / "login.sh"
    program.write_text('#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "secret"}\'\n')
    program.chmod(0o755)
    (tmp_path / "config").write_text(
        f"[profile lab]\nregion = eu-west-1\nendpoint_url = {s3.url}\ncredential_process = {program}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    storage.write_bytes(f"s3://{name}/a", b"from a profile")
    assert storage.read_bytes(f"s3://{name}/a") == b"from a profile"
    assert s3.puts(f"{name}/a")


def test_a_forked_process_says_so_and_does_not_hang(s3: FaultyS3) -> None:
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    storage.write_bytes(f"s3://{name}/a", b"")
    said, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            storage.read_bytes(f"s3://{name}/a")
        except RunError as e:
            os.write(write, str(e).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"was forked" in os.read(said, 1000)
    os.close(said)
    os.close(write)


@pytest.mark.slow
def test_an_extraction_gives_the_same_targets(place: str, corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "local")
    summary = extract_s3(put_corpus(corpus, place), place)
    assert (summary.ok, summary.failed) == (96, 0)
    there, here = (TargetStore(url).target_set("level") for url in (f"{place}/store", str(tmp_path / "local")))
    assert there.done.keys() == here.done.keys()
    for utterance in list(Manifest.read(f"{place}/corpus/manifest.jsonl"))[::7]:
        np.testing.assert_array_equal(there.read(utterance).frames, here.read(utterance.id).frames)
    np.testing.assert_array_equal(there.dask().compute(), here.dask().compute())
    assert not verify(f"{place}/store").damages
    assert extract_s3(f"{place}/corpus/manifest.jsonl", place).units_done == 0
