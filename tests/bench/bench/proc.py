"""Processes under measurement: started, read through /proc, and ended by their own id."""

import json
import os
import re
import resource
import subprocess
import threading
import time
from pathlib import Path


# Of the program and of the load client, each with 20,000 connections.
FILES = 32_768


class Failed(Exception):
    """A process under measurement did not do its work; one sentence."""


class Server:
    """A server process. `ready` is a pattern of the output line that says it serves; its group is IP:PORT, or the port."""

    def __init__(self, command, ready, *, core=None, cwd=None, limit_s=30, env=None):
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
        self.pid = self.process.pid
        self.lines = []
        self.address = None
        self._ready = threading.Event()
        self._pattern = re.compile(ready)
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(limit_s) or self.address is None:
            self.stop()
            said = " | ".join(line for _, line in self.lines[-3:])
            raise Failed(f"{Path(str(command[0])).name} was not ready within {limit_s} s: {said or 'no output'}")
        self.ready_ms = (self.ready_at - self.begun) * 1000

    def _read(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").rstrip()
            at = time.monotonic()
            if len(self.lines) < 100_000:
                self.lines.append((at, line))
            found = self._pattern.search(line)
            if found and self.address is None:
                address = found[1] if found.groups() else ""
                self.address = address if ":" in address else f"127.0.0.1:{address}"
                self.ready_at = at
                self._ready.set()
        self._ready.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            await_end(self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def memory_kib(self):
        """RSS, PSS and anonymous memory in KiB."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        kib = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
        return {"rss": kib["Rss"], "pss": kib["Pss"], "anonymous": kib["Anonymous"]}

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_s(self):
        """CPU time so far. From schedstat (ns) where the kernel has it, else in ticks."""
        tasks = Path(f"/proc/{self.pid}/task")
        total = 0
        for task in os.listdir(tasks):
            try:
                total += int((tasks / task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass
        if total:
            return total / 1e9
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    """The load client; each command is answered with one JSON object."""

    def __init__(self, binary, address, kind, *options, core=None):
        self.process = subprocess.Popen(
            [str(binary), address, kind, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        await_end(self.process)

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Failed(f"the load client ended at `{command}`")
        return json.loads(answer)

    def join(self, peers, rate):
        answer = self.say(f"join {peers} {rate}")
        if answer["joined"] != peers:
            raise Failed(f"of {peers} peers only {answer['joined']} could join")
        return answer

    def churn(self, peers, rate):
        """So many peers join and leave again, one after another."""
        answer = self.say(f"churn {peers} {rate}")
        if answer["left"] != peers:
            raise Failed(f"of {peers} peers only {answer['left']} joined and left")


def await_end(process):
    """Waits for the end of a process that was told to end, and makes it end after 5 s."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(limit_s, condition, what):
    """What the condition returns, as soon as that is true of it."""
    end = time.monotonic() + limit_s
    while not (met := condition()):
        if time.monotonic() > end:
            raise Failed(f"waited {limit_s} s for {what}")
        time.sleep(0.05)
    return met


def raise_file_limit():
    """Allows as many open files as are needed, or else as the machine permits; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except (ValueError, OSError):
            # Only root may raise the hard limit.
            pass
    return hard


def output(*command, **options):
    """Runs a command to its end and returns its output; `Failed` with the last line of its errors."""
    try:
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(f"{Path(str(command[0])).name}: {errors[-1] if errors else f'exit code {done.returncode}'}")
    return done.stdout
