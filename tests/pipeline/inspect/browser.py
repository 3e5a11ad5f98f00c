"""Pages in headless Chromium, where there is one."""

import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars")


def browse(document: Path, address: str, *arguments: str) -> tuple[str, list[str]]:
    """The page as Chromium has it after a while, and what its console said."""
    assert CHROMIUM
    profile = f"--user-data-dir={document.parent / 'profile'}"
    logged = ("--enable-logging=stderr", "--virtual-time-budget=4000", "--window-size=1400,1000")
    done = subprocess.run(
        [CHROMIUM, *QUIET, profile, *logged, *arguments, f"{document.as_uri()}{address}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
