"""The parts of the supervisor that need no container: listings, the traceback page, the watcher, the profile."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sandbox_image.sandboxd import changes, fallback
from sandbox_image.sandboxd.loop import Loop
from sandbox_image.sandboxd.policy import Image, Policy, Refused, real_program
from sandbox_image.sandboxd.settings import Settings
from sandbox_image.sandboxd.watch import Watcher

PROJECT = Path(__file__).parents[2]
# What a tenant must never be able to ask the kernel for.
NAMES = """
memfd_create memfd_secret ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp execveat unshare setns mount
umount2 bpf perf_event_open io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key userfaultfd
open_by_handle_at pivot_root chroot reboot kexec_load init_module finit_module delete_module swapon swapoff acct
settimeofday clock_settime iopl ioperm quotactl fsopen fsmount move_mount open_tree mount_setattr fanotify_init
"""
FORBIDDEN = frozenset(NAMES.split())


def test_the_profile_refuses_by_default_and_allows_none_of_the_dangerous_calls() -> None:
    profile = json.loads((PROJECT / "sandbox_image/seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {n for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
    assert allowed.isdisjoint(FORBIDDEN)
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "execve"} <= allowed
    # No 32-bit calls: their numbers mean other things, and nothing here needs them.
    assert all(not entry["subArchitectures"] for entry in profile["archMap"])


def test_every_rule_of_the_profile_says_why() -> None:
    profile = json.loads((PROJECT / "sandbox_image/seccomp.json").read_text())
    assert all(rule["comment"] for rule in profile["syscalls"])


def test_what_changed_is_found_even_when_times_were_set_back(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a")
    (tmp_path / "gone").write_text("b")
    (tmp_path / "same").write_text("c")
    before, complete = changes.listing(str(tmp_path))
    assert complete
    past = (tmp_path / "kept").stat()
    # Until the clock of the file system has moved on.
    while True:
        (tmp_path / "kept").write_text("z")
        if (tmp_path / "kept").stat().st_ctime_ns != past.st_ctime_ns:
            break
        time.sleep(0.001)
    os.utime(tmp_path / "kept", ns=(past.st_atime_ns, past.st_mtime_ns))
    (tmp_path / "gone").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "f\udcff").touch()
    after, _ = changes.listing(str(tmp_path))
    assert changes.compare(str(tmp_path), before, after, 100) == (["gone", "kept", "new", "new/f\\xff"], True)
    assert changes.compare(str(tmp_path), before, after, 2) == (["gone", "kept"], False)


def test_a_listing_never_leaves_its_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    found, _ = changes.listing(str(tmp_path / "in"))
    assert set(found) == {str(tmp_path / "in" / "link")}


def test_the_traceback_page_escapes_what_the_app_said() -> None:
    response = fallback.page("<script>alert(1)</script> {0} {error} \udcff")
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"500 Internal Server Error" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body


def test_the_watcher_notices_new_directories_and_ignores_what_it_should(tmp_path: Path) -> None:
    loop = Loop()
    seen: list[float] = []

    def noticed() -> None:
        seen.append(time.monotonic())
        loop.running = False

    (tmp_path / "a.py").write_text("1")
    watcher = Watcher(loop, [str(tmp_path)], (".py",), noticed)

    def wait(act: object, limit_s: float) -> bool:
        before = len(seen)
        loop.running = True
        loop.later(0.01, act)  # type: ignore[arg-type]
        guard = loop.later(limit_s, lambda: setattr(loop, "running", False))
        loop.run()
        guard.cancel()
        return len(seen) > before

    assert wait(lambda: (tmp_path / "a.py").write_text("22"), 30)
    assert wait(lambda: ((tmp_path / "d").mkdir(), (tmp_path / "d" / "b.py").write_text("1")), 30)
    assert wait(lambda: (tmp_path / "d" / "b.py").write_text("333"), 30)
    assert not wait(lambda: (tmp_path / "notes.log").write_text("x"), 0.6)
    watcher.close()


def test_a_callback_that_fails_does_not_end_the_loop() -> None:
    loop = Loop()
    loop.later(0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    loop.later(0.02, lambda: setattr(loop, "running", False))
    loop.run()


def test_programs_that_could_be_exchanged_are_not_listed(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    image = Image({})
    with pytest.raises(Refused, match="can be changed"):
        real_program(str(program), image, ())
    with pytest.raises(Refused, match="tenant can write"):
        real_program(str(program), image, (str(tmp_path),))


def test_a_refused_program_leaves_the_others_listed() -> None:
    policy = Policy("v1")
    policy.add("/nowhere", [], [], Image({}), ())
    assert policy.find("/nowhere") is None
    assert "/nowhere" in policy.refused


@pytest.mark.parametrize(("text", "chosen"), [("", False), ("1", True), ("true", True), ("0", False), ("no", False)])
def test_gate_only_must_be_chosen(text: str, chosen: bool) -> None:
    assert Settings({"SANDBOXD_GATE_ONLY": text}, "").gate_only is chosen
