"""Object stores through obstore: one store a bucket and process, credentials as users have them, one set of errors."""

import errno
import os
import re
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from coat.manifests.errors import InputError, RunError, Unreachable, one_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# How long a request that fails for the store's or the network's reasons is tried again, with backoff and jitter;
# COAT_STORE_RETRY_S says otherwise.
RETRY_S = 120.0
BACKOFF = {"init_backoff": timedelta(milliseconds=200), "base": 2, "max_backoff": timedelta(seconds=15)}
# Of one attempt, body included: an object of 128 MB at 0.5 MB/s. A download that is cut goes on where it was.
TIMEOUT_S = 300
ENVIRONMENT = ("AWS_", "GOOGLE_", "AZURE_", "AZURITE_", "COAT_STORE_")  # what decides endpoints and credentials
CREDENTIALS_S = 300  # that botocore's credentials are used before it is asked again: it renews them itself
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}

T = TypeVar("T")
used_in: set[int] = set()  # processes in which a store was opened


def open_store(url: str, protocol: str) -> "tuple[ObjectStore, str]":
    """The store of a URL's bucket, and the key inside it. InputError where the driver is not installed."""
    place, _, key = url.split("://", 1)[1].partition("/")
    if used_in - {os.getpid()}:
        raise RunError(
            f"{url}: this process was forked from one that used object stores, whose threads are not here; start "
            "processes by spawn or forkserver (torch: DataLoader(multiprocessing_context='spawn'))"
        )
    environment = tuple(sorted(i for i in os.environ.items() if i[0].startswith(ENVIRONMENT)))
    try:
        store = bucket_store(protocol, place, environment if protocol in EXTRAS else ())
    except ImportError as e:
        raise InputError(
            f"{url}: no driver for {protocol}:// here ({e}); pip install 'coat-audio[{EXTRAS.get(protocol, 's3')}]'"
        ) from e
    used_in.add(os.getpid())
    return store, key


@lru_cache(maxsize=256)
def bucket_store(protocol: str, place: str, environment: tuple[tuple[str, str], ...]) -> "ObjectStore":
    """Kept for the life of the process, connections and credentials with it, unless the `environment` changes."""
    from obstore.store import AzureStore, GCSStore, MemoryStore

    if protocol == "memory":
        return MemoryStore()
    retry_s = float(dict(environment).get("COAT_STORE_RETRY_S", RETRY_S))
    options: dict[str, Any] = {
        # http where the endpoint that the user gave says it
        "client_options": {"allow_http": True, "timeout": timedelta(seconds=TIMEOUT_S)},
        "retry_config": {"max_retries": 1000, "retry_timeout": timedelta(seconds=retry_s), "backoff": BACKOFF},
    }
    if protocol in ("s3", "s3a"):
        return s3_store(place, options)
    if protocol in ("gs", "gcs"):
        return GCSStore(place, **options)
    container, _, host = place.partition("@")  # abfss://container@account.dfs.core.windows.net/key
    if host:
        options["account_name"] = host.split(".")[0]
    return AzureStore(container, **options)


def s3_store(bucket: str, options: dict[str, Any]) -> "ObjectStore":
    """Keys of the environment are used as they are. Without them botocore is asked, if it is there: profiles, SSO,
    roles, `credential_process`, containers and instances, as every AWS tool finds them. obstore itself knows the
    environment, web identity, containers and instances.
    """
    from obstore.store import S3Store

    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return S3Store(bucket, **options)
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if os.environ.get("AWS_PROFILE"):
            raise
        return S3Store(bucket, **options)
    session = boto3.Session()
    try:
        provider = Boto3CredentialProvider(session, ttl=timedelta(seconds=CREDENTIALS_S))
    except ValueError as e:
        raise PermissionError(
            errno.EACCES, "no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from e
    return S3Store(bucket, credential_provider=provider, **endpoint_of_profile(session), **options)


def endpoint_of_profile(session: Any) -> dict[str, Any]:
    """`endpoint_url` of ~/.aws/config, where the environment has none."""
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        return {}
    profile = session._session.get_scoped_config()  # boto3 has no way to ask it
    return {"endpoint": profile["endpoint_url"]} if profile.get("endpoint_url") else {}


def translated(url: str, call: Callable[[], T]) -> T:
    """What `call` gives. OSError of the usual kinds where the store refuses, Unreachable where it does not answer.

    FileNotFoundError, FileExistsError, PermissionError (also: no credentials, another region). All that may pass has
    been tried again by then.
    """
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    try:
        return call()
    except FileNotFoundError as e:
        raise FileNotFoundError(errno.ENOENT, reason(e), url) from e
    except (AlreadyExistsError, PreconditionError) as e:
        raise FileExistsError(errno.EEXIST, "is there already", url) from e
    except (PermissionDeniedError, UnauthenticatedError) as e:
        raise PermissionError(errno.EACCES, reason(e), url) from e
    except BaseError as e:
        text = str(e)
        if "404 Not Found" in text:  # of a listing
            raise FileNotFoundError(errno.ENOENT, reason(e), url) from e
        if re.search("40[13] (Forbidden|Unauthorized)|redentials|/token|token request|Boto", text):
            raise PermissionError(errno.EACCES, reason(e), url) from e
        if "redirect" in text:
            raise PermissionError(errno.EACCES, "the bucket is in another region; set AWS_REGION to it", url) from e
        raise Unreachable(f"{url}: the store does not answer ({reason(e)}); run again") from e


def reason(error: BaseException) -> str:
    """What a store said, in one line: obstore adds the whole request and a debug print of it."""
    text = str(error).split("\n\nDebug source", 1)[0]
    status = re.search(r"status code: (\d+ [\w ]+)", text)
    said = re.search("<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    if said:
        return one_line(RuntimeError(f"{status[1] if status else 'error'}, {said[1]}: {said[2]}"), 200)
    return status[1].strip() if status else one_line(RuntimeError(text), 200)
