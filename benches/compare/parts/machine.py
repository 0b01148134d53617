"""Processes on their cores: started, ended, and what the operating system says that they cost.

It ends only what it started, and knows nothing of gateways.
"""

import os
import socket
import subprocess
import time
from pathlib import Path

GATEWAY_CORE, OTHER_CORE = "0", "1"


def free_port():
    """A port of loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A program on one core; its output goes to a file."""

    def __init__(self, command, core, log, environment=None):
        self.log = Path(log)
        with open(log, "w") as out:
            self.began = time.monotonic()
            self.child = subprocess.Popen(
                ["taskset", "-c", core, *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(environment or {})},
            )

    def listens(self, port, longest=60):
        """Waits until somebody listens there; false if the program ended before, or took too long."""
        until = time.monotonic() + longest
        while time.monotonic() < until and self.child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return True
            except OSError:
                time.sleep(0.005)
        return False

    def all(self):
        """It and its children, theirs too."""
        found, open_ = [], [self.child.pid]
        while open_:
            pid = open_.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    open_ += map(int, (task / "children").read_text().split())
                except OSError:
                    pass
        return found

    def cpu_s(self):
        """Seconds on a core up to now, by the scheduler's accounting, of all that still runs."""
        total = 0
        for pid in self.all():
            for task in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    total += int((task / "schedstat").read_text().split()[0])
                except OSError:
                    pass
        return total / 1e9

    def memory_mib(self, line="VmRSS"):
        """Resident memory, or its peak (`VmHWM`)."""
        total = 0
        for pid in self.all():
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += sum(int(row.split()[1]) for row in text.splitlines() if row.startswith(line + ":"))
        return total / 1024

    def end(self):
        """Ends it and what it started."""
        pids = self.all() if self.child.poll() is None else []
        for pid in pids:
            try:
                os.kill(pid, 15)
            except OSError:
                pass
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            for pid in self.all():
                try:
                    os.kill(pid, 9)
                except OSError:
                    pass
            self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
