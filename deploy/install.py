"""Install with uv, in the versions of constraints.txt:  python deploy/install.py --editable '.[all]'
Or in those of a file of requirements:  python deploy/install.py --requirement deploy/serving/vllm.txt

The Makefile and the image use it, with the Python that is installed into. It needs pip alone, which brings uv:
pip resolves for minutes, uv for seconds. uv reads none of pip's settings, so they are passed on where UV_* does not say
otherwise.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
SECTIONS = (":env:", "install", "global")  # of pip's settings: the first that has one counts
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")


def pip_settings(listed: str) -> dict[str, str]:
    """By name, of what `pip config list` prints: a line each, `section.name='value'`."""
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    values = {key: str(ast.literal_eval(value)) for key, _, value in lines}
    found: dict[str, str] = {}
    for section in SECTIONS:
        for key, value in values.items():
            if key.startswith(section + "."):
                found.setdefault(key.removeprefix(section + "."), value)
    return found


def uv_environment(
    settings: Mapping[str, str], environ: Mapping[str, str], extra_indexes: bool = True
) -> dict[str, str]:
    """What uv is told of pip's settings."""

    def words(name: str, by: str = " ") -> str:
        return by.join(settings.get(name, "").split())

    found = {
        "UV_FIND_LINKS": words("find-links", ","),
        "UV_INSECURE_HOST": words("trusted-host"),
        "UV_HTTP_TIMEOUT": words("timeout") or words("default-timeout"),
        "SSL_CERT_FILE": words("cert"),
        "ALL_PROXY": words("proxy"),
    }
    if not any(name in environ for name in INDEXES):
        found["UV_DEFAULT_INDEX"] = words("index-url")
        if extra_indexes:
            found["UV_INDEX"] = words("extra-index-url")
    if words("no-index") in ("1", "true", "True", "yes", "on"):
        found["UV_NO_INDEX"] = "1"
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: the pinned version from whichever index has it
    return {name: value for name, value in found.items() if value and name not in environ}


def main(arguments: list[str]) -> int:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "install", "-qq", "--constraint", str(CONSTRAINTS), "uv"], check=True)
    listed = subprocess.run([*pip, "config", "list"], check=True, capture_output=True, text=True).stdout
    # Compiled here, as by pip: under PYTHONDONTWRITEBYTECODE each process would compile what it imports, for some 5 s.
    command = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable]
    # A file of requirements has its own versions: it is for an environment of its own.
    command += arguments if "--requirement" in arguments else ["--constraint", str(CONSTRAINTS), *arguments]
    settings = pip_settings(listed)
    # Of a version that several indexes have, pip takes the best wheel of all of them, uv one of the first index, which
    # may have none for this platform. So pip's extra indexes are asked only where the default one lacks something.
    status = 1
    for extra_indexes in (False, True) if settings.get("extra-index-url") else (True,):
        environ = {**os.environ, **uv_environment(settings, os.environ, extra_indexes)}
        status = subprocess.run([sys.executable, "-m", *command], env=environ).returncode
        if status == 0:
            break
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
