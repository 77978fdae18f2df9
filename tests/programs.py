"""A program of ours that a test starts, and the lines that it prints."""

import os
import queue
import signal
import subprocess
import threading

WAIT = 30.0
PATIENCE = 100


class Program:
    """A running command; `key` is its GRID_API_KEY."""

    def __init__(self, command: list[str], key: str = "") -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
        self.lines: list[str] = []
        self._coming: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command,
            env={**environment, "GRID_API_KEY": key},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def wait_for(self, word: str) -> str:
        """What the next line with this first word says."""
        while True:
            line = self._coming.get(timeout=WAIT)
            assert line is not None, (self.lines, self.end())
            self.lines.append(line)
            first, _, rest = line.partition(" ")
            if first == word:
                return rest

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Exit code and last words of one that ends by itself."""
        assert self._process.stderr is not None
        code = self._process.wait(PATIENCE)
        return code, self._process.stderr.read()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
