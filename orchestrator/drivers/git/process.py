"""One git process: argument list, empty environment, pinned configuration, bounded time and output."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from orchestrator.core.ports.git import GitFailed

# What a hostile repository could use to run a program or reach a network, pinned off for every call.
PINS: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.alternateRefsCommand": "",
    "core.bigFileThreshold": "64m",  # what is larger is never held in memory whole
    "core.askPass": "",
    "credential.helper": "",
    "diff.external": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "transfer.fsckObjects": "true",
    "fetch.fsckObjects": "true",
    "receive.fsckObjects": "true",
    "fetch.writeCommitGraph": "false",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.https.allow": "always",
    "submodule.recurse": "false",
    "safe.bareRepository": "explicit",
}
CREDENTIAL_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class Output:
    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")


@dataclass(frozen=True)
class Git:
    """Runs git for one bare repository. `timeout_s` bounds every call, `bytes_max` what it may print.

    `variables` are set for every call, such as where objects are kept.
    """

    directory: Path
    program: str = "git"
    timeout_s: float = 120.0
    bytes_max: int = 64 * 1024 * 1024
    pins: Mapping[str, str] = field(default_factory=lambda: PINS)
    variables: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, *arguments: str) -> list[str]:
        pinned = [part for name, value in self.pins.items() for part in ("-c", f"{name}={value}")]
        return [self.program, *pinned, f"--git-dir={self.directory}", *arguments]

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Nothing of ours is inherited but the search path and the host's certificate settings."""
        kept = {k: os.environ[k] for k in ("PATH", "SSL_CERT_FILE", "GIT_SSL_CAINFO") if k in os.environ}
        return {
            **kept,
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            **self.variables,
            **extra,
        }

    def run(
        self,
        *arguments: str,
        stdin: bytes | BinaryIO = b"",
        environment: Mapping[str, str] | None = None,
        allowed: Sequence[int] = (0,),
        cut: bool = False,
    ) -> Output:
        """Run it and return what it said. `stdin` is fed from bytes, or from a file at its present position.

        Raises GitFailed on a time-out, an exit code outside `allowed`, or more output than `bytes_max` (with `cut`
        the rest is left out); the message names the subcommand and the end of git's own words, without credentials.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                done = subprocess.run(
                    self.arguments(*arguments),
                    **({"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}),
                    stdout=out,
                    stderr=err,
                    env=self.environment(environment or {}),
                    cwd="/",
                    timeout=self.timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as late:
                raise GitFailed(f"git {arguments[0]} took longer than {self.timeout_s:g} s and was ended.") from late
            except OSError as error:
                raise GitFailed(
                    f"git could not be started: {error.strerror}.", next_step="Install git 2.38."
                ) from error
            if out.seek(0, os.SEEK_END) > self.bytes_max and not cut:
                raise GitFailed(f"git {arguments[0]} printed more than {self.bytes_max // 2**20} MiB.")
            out.seek(0)
            err.seek(0)
            output = Output(
                done.returncode,
                out.read(self.bytes_max),
                CREDENTIAL_IN_URL.sub("***@", err.read(20_000).decode("utf-8", "replace")),
            )
        if output.exit_code not in allowed:
            raise GitFailed(
                f"git {arguments[0]} failed with exit code {output.exit_code}.",
                effect=output.stderr.strip()[-600:],
                exit_code=output.exit_code,
            )
        return output

    @contextmanager
    def piped(self, *arguments: str, stdin: bytes = b"") -> Iterator[IO[bytes]]:
        """Its standard output while it runs, for what is too much to hold; it is ended with the block.

        Raises GitFailed at the end when git did not succeed or took longer than `timeout_s`.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            process = subprocess.Popen(
                self.arguments(*arguments),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=err,
                env=self.environment({}),
                cwd="/",
            )
            late = threading.Timer(self.timeout_s, process.kill)
            late.daemon = True
            late.start()
            try:
                if process.stdout is None:
                    raise GitFailed(f"git {arguments[0]} could not be read.")
                yield process.stdout
                process.stdout.close()
                process.wait()
            finally:
                late.cancel()
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            if process.returncode != 0:
                err.seek(0)
                said = CREDENTIAL_IN_URL.sub("***@", err.read(20_000).decode("utf-8", "replace"))
                raise GitFailed(
                    f"git {arguments[0]} failed or took longer than {self.timeout_s:g} s.", effect=said.strip()[-600:]
                )
