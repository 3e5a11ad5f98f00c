"""The model hub: does it answer, by the client and the settings that downloads use? The token is never printed."""

import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from coat.doctor.child import within
from coat.doctor.finding import Finding, Request, absent, line_of, ok, warning

ANSWER_S = 5.0
SKEW_S = 60.0  # of the clock: S3 refuses requests from 15 minutes on, certificates earlier or later
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def look(request: Request) -> Iterator[Finding]:
    from huggingface_hub import constants, get_token

    try:
        token = get_token()
    except Exception as e:  # noqa: BLE001 - of several sources, one of which asks the hub
        yield warning("token", f"cannot be read ({type(e).__name__})", "hf auth login")
        token = None
    if constants.HF_HUB_OFFLINE:
        named = " and ".join(f"{name}={os.environ[name]}" for name in OFFLINE if os.environ.get(name))
        yield absent(
            "hub",
            f"not asked: {named}; only what {constants.HF_HUB_CACHE} holds can be used",
            f"unset {' '.join(OFFLINE)}",
        )
        yield absent("token", "set, and not tried" if token else "none")
        return
    yield from asked(constants.ENDPOINT, token)


def asked(endpoint: str, token: str | None) -> Iterator[Finding]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    began = time.monotonic()
    try:
        answer = within(ANSWER_S + 1, lambda: get(f"{endpoint}/api/whoami-v2", headers))
    except Exception as e:  # noqa: BLE001 - of sockets, TLS, proxies: whatever it is, the hub cannot be used
        through = next((name for name in PROXIES if os.environ.get(name)), None)
        way = f" through {name_of_proxy(through)}" if through else ""
        yield warning(
            "hub",
            f"{endpoint} does not answer{way} ({without(token, line_of(e, 200))})",
            (f"check {through}; or " if through else "set HTTPS_PROXY where the network needs a proxy; or ")
            + "give --checkpoint and --student folders, and export HF_HUB_OFFLINE=1, which saves waiting",
        )
        yield absent("token", "set, and not tried" if token else "none")
        return
    seconds = time.monotonic() - began
    yield ok("hub", f"{endpoint} answers in {seconds:.1f} s")
    yield token_state(answer.status_code, token)
    if (skew := skew_of(answer.headers.get("date"))) is not None and abs(skew) > SKEW_S:
        yield warning(
            "clock", f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the hub's", "timedatectl set-ntp true"
        )


def get(url: str, headers: dict[str, str]) -> Any:
    from huggingface_hub.utils import get_session

    return get_session().get(url, headers=headers, timeout=ANSWER_S)


def token_state(status: int, token: str | None) -> Finding:
    if not token:
        return absent("token", "none: gated and private models cannot be had", "hf auth login")
    if status in (401, 403):
        return warning("token", f"set, and refused by the hub (status {status})", "hf auth login")
    return ok("token", "set, and accepted" if status == 200 else f"set; the hub answered with status {status}")


def skew_of(date: str | None) -> float | None:
    """Seconds by which this machine's clock is ahead."""
    if not date:
        return None
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


def name_of_proxy(variable: str) -> str:
    """Its address without user and password, which may stand before an @."""
    scheme, found, rest = os.environ[variable].rpartition("://")
    return f"{variable}={scheme}{found}{rest.rpartition('@')[2]}"


def without(token: str | None, text: str) -> str:
    """Secrets left out of an error: the token, and the password of a proxy."""
    for variable in PROXIES:
        user, at, _ = os.environ.get(variable, "").rpartition("://")[2].rpartition("@")
        if at:
            text = text.replace(user, "...")
    return text.replace(token, "...") if token else text
