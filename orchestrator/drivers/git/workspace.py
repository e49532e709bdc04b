"""A tenant's first clone, made on the host before anybody has written to it; later only git inside touches it."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.drivers.git.process import PINS, Git

UPSTREAM = "refs/remotes/company"


def create(tree: Path, git: Path, *, source: Path, branch: str, start: str, upstream: str) -> None:
    """Fill `tree` and `git` from our bare repository `source`; see core.ports.git.Repository.create_workspace."""
    partial_tree, partial_git = tree.with_suffix(".partial"), git.with_suffix(".partial")
    for leftover in (partial_tree, partial_git):
        shutil.rmtree(leftover, ignore_errors=True)
    partial_tree.mkdir(parents=True)
    partial_git.parent.mkdir(parents=True, exist_ok=True)
    # Objects come from our own checked repository; checking them once more would double the time of a launch.
    trusted = Git(partial_git, pins={**PINS, "fetch.fsckObjects": "false", "transfer.fsckObjects": "false"})
    trusted.run("init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(partial_git))
    wanted = f"+refs/heads/{upstream}:{UPSTREAM}/{upstream}"
    trusted.run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(source), wanted, start)
    trusted.run("update-ref", f"refs/heads/{branch}", start)
    for name, value in (("core.bare", "false"), ("core.logAllRefUpdates", "true"), ("gc.auto", "0")):
        trusted.run("config", name, value)
    trusted.run("read-tree", "-u", "--reset", start, environment={"GIT_WORK_TREE": str(partial_tree)})
    partial_tree.rename(tree)
    partial_git.rename(git)


def first_commit(files: Path, repository: Path, *, branch: str) -> None:
    """Make a bare repository whose `branch` holds the files below `files`, in one commit. For the demo's company."""
    partial = repository.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    git = Git(partial)
    git.run("init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(partial))
    work_tree = {"GIT_WORK_TREE": str(files)}
    git.run("add", "--all", "--", str(files), environment=work_tree)
    tree = git.run("write-tree").text.strip()
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Harbour Hotels"), ("EMAIL", "it@harbour-hotels.example"))
    }
    commit = git.run("commit-tree", tree, "-F", "-", stdin=b"Back office as it is today\n", environment=identity)
    git.run("update-ref", f"refs/heads/{branch}", commit.text.strip())
    partial.rename(repository)
