"""The company's remote: fetch, look, and push by compare-and-swap, each with the key meant for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.ports.git import GitFailed, PushRefused, RemoteUnreachable
from orchestrator.drivers.git.keys import REFUSED, VARIABLE, PushKeys
from orchestrator.drivers.git.process import CREDENTIAL_IN_URL, Git

REFUSALS = (
    "[rejected]",
    "[remote rejected]",
    "non-fast-forward",
    "stale info",
    "fetch first",
    "denied",
    "protected",
    REFUSED,
)


@dataclass(frozen=True)
class Remote:
    """`url` is a path, ssh or https address. `ssh_programs` names, per credential, a program git starts instead of
    ssh (GIT_SSH: a program, never a shell line); it holds the key, so no key is ever an argument or a variable."""

    url: str
    ssh_programs: Mapping[str, Path] = field(default_factory=dict)
    keys: PushKeys | None = None  # of a repository of our own

    @property
    def shown(self) -> str:
        return CREDENTIAL_IN_URL.sub("***@", self.url)

    def fetch(self, git: Git, branch: str) -> str | None:
        there = self.branch(git, branch)
        if there is not None:
            here = f"refs/heads/{branch}"
            self._talk(git, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", self.url, f"+{here}:{here}")
        return there

    def branch(self, git: Git, branch: str) -> str | None:
        reference = f"refs/heads/{branch}"
        for line in self._talk(git, "ls-remote", "--heads", self.url, reference).splitlines():
            commit, name = line.split("\t", 1)
            if name == reference:
                return commit
        return None

    def push(self, git: Git, commit: str, branch: str, expected: str | None, credential: str) -> None:
        reference = f"refs/heads/{branch}"
        # Whoever publishes has just looked; the lease below has the remote compare in any case.
        there = expected if credential == "publish" else self.branch(git, branch)
        if there == commit:
            return  # an earlier push arrived although its answer was lost
        if there != expected or (there is not None and not self._descends(git, there, commit)):
            raise self._refused(branch, f"it is at {(there or 'nothing')[:12]}")
        # The lease makes the remote compare; without `+` and with this check it can never rewrite history.
        lease = f"--force-with-lease={reference}:{there or ''}"
        arguments = ("push", "--quiet", "--no-verify", "--atomic", lease, self.url, f"{commit}:{reference}")
        self._talk(git, *arguments, credential=credential, branch=branch)

    def _descends(self, git: Git, ancestor: str, descendant: str) -> bool:
        return git.run("merge-base", "--is-ancestor", ancestor, descendant, allowed=(0, 1, 128)).exit_code == 0

    def _talk(self, git: Git, *arguments: str, credential: str = "publish", branch: str = "") -> str:
        program = self.ssh_programs.get(credential)
        environment = {"GIT_SSH": str(program), "GIT_SSH_VARIANT": "ssh"} if program else {}
        if self.keys is not None:
            environment[VARIABLE] = str(self.keys.files()[credential])
        try:
            return git.run(*arguments, environment=environment).text
        except GitFailed as failure:
            words = failure.effect
            if arguments[0] == "push" and any(word in words for word in REFUSALS):
                raise self._refused(branch, words) from failure
            raise RemoteUnreachable(
                f"The remote {self.shown} did not answer as expected.",
                effect=words or failure.message,
                next_step="Check the address, the network and the key; it is tried again by the next publish.",
            ) from failure

    def _refused(self, branch: str, why: str) -> PushRefused:
        return PushRefused(
            f"The remote refused the push to {branch}.",
            effect=why,
            next_step="Fetch what is there, merge it into the workspace and publish again.",
        )
