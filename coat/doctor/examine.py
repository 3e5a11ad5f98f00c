"""All subjects at once: what may hang in processes beside this one, the rest here."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from coat.doctor.finding import Finding, Request, broken, ok
from coat.doctor.subjects import SUBJECTS, findings_of

PATIENCE_S = 60.0  # for one subject: torch from a busy share takes most of it
EXIT_S = 5.0  # for a process whose output has ended


def examine(subjects: list[str], request: Request, patience_s: float = PATIENCE_S) -> Iterator[tuple[str, Finding]]:
    """Subject and finding, in the order of `subjects`, as they come. Each subject has at most `patience_s`."""
    beside = {name: Beside(name, request, patience_s) for name in subjects if SUBJECTS[name].alone}
    try:
        for name in subjects:
            found = beside[name].findings() if name in beside else findings_of(name, request)
            for finding in found:
                yield name, finding
    finally:
        for process in beside.values():
            process.end()


class Beside:
    """The look at one subject in a process of its own."""

    def __init__(self, name: str, request: Request, patience_s: float) -> None:
        self.name, self.patience_s = name, patience_s
        self.deadline = time.monotonic() + patience_s
        self.lines: list[str] = []
        self.error: OSError | None = None
        self.process: subprocess.Popen[str] | None = None
        command = [sys.executable, "-m", "coat.doctor.child", name, request.ray_address or ""]
        try:
            self.process = subprocess.Popen(  # noqa: S603 - ourselves
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # so that all of it can be ended
            )
        except OSError as e:  # no more processes, or no memory for one
            self.error = e
            return
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def findings(self) -> Iterator[Finding]:
        if self.process is None:
            yield broken(self.name, f"no process could be started ({self.error})", "coat doctor --only limits")
            return
        self.reader.join(max(0.0, self.deadline - time.monotonic()))
        hung = self.reader.is_alive()
        yield from (Finding(**json.loads(line)) for line in list(self.lines) if line.endswith("\n"))
        if hung:
            yield broken(
                self.name,
                f"no end within {self.patience_s:g} s" + (f", after {self.last()}" if self.lines else ""),
                f"coat doctor --only {self.name} --patience 300; where that hangs too, look for a share, a device or "
                "a network that does not answer",
            )
            return
        try:
            code = self.process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return  # it has said all; a thread of it hangs in the kernel
        if code:
            yield broken(
                self.name,
                f"the process that looked was ended by {ending(code)}"
                + (f", after {self.last()}" if self.lines else ""),
                f"a library that it loads crashes here: reinstall what the lines of {self.name} name, or "
                "python deploy/install.py --reinstall --editable . in a checkout",
            )
        elif not self.lines:
            yield ok(self.name, "nothing to say")

    def last(self) -> str:
        return json.loads(self.lines[-1])["what"]

    def end(self) -> None:
        """Also what it started. Without waiting: a process that hangs in the kernel cannot be ended."""
        if self.process is not None and self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
