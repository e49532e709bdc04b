"""Take any one layer away and the self-test says so, by name, and nothing runs: no layer is there for show."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.ports.engine import ContainerSpec, Mount
from orchestrator.core.ports.sandboxd import CommandLimits, KernelGate, KernelGateBroken, StoppedBy
from orchestrator.drivers.docker import arguments
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.sandboxd import SandboxdClient
from tests.support.engine import SessionImages
from tests.support.processes import STUBBORN, eventually, settled
from tests.support.sandbox import (
    PATIENCE_S,
    PROJECT,
    Sandbox,
    sandbox_spec,
    socket_directory,
    test_uid,
)

pytestmark = pytest.mark.engine

Change = Callable[[ContainerSpec, Path], ContainerSpec]
HostChange = Callable[[dict[str, Any]], None]


@contextmanager
def weakened(
    engine: DockerEngine,
    image: str,
    directory: Path,
    *,
    change: Change = lambda spec, _: spec,
    host: HostChange = lambda _: None,
) -> Iterator[Sandbox]:
    """A sandbox with one thing taken away: in its specification, or behind it in what the engine is told."""
    uid = test_uid()
    name = f"sandbox-weak-{os.getpid()}-{directory.name}"[:60]
    with socket_directory(uid) as sockets:
        spec = change(sandbox_spec(image, sockets, name=name, uid=uid), directory)
        seccomp = None if spec.seccomp_profile is None else spec.seccomp_profile.read_text()
        body = arguments.create_body(spec, engine.instance, seccomp)
        host(body["HostConfig"])
        api = engine.connection.api
        made = api.create_container_from_config(body, name)
        try:
            api.start(made["Id"])
            client = SandboxdClient(sockets, uid=uid, request_wait_s=PATIENCE_S)
            client.wait(timeout_s=PATIENCE_S)
            yield Sandbox(client, sockets, name, uid)
        finally:
            engine.remove(name)


def mounted(target: str, options: str) -> Change:
    return lambda spec, _: replace(spec, tmpfs={**spec.tmpfs, target: spec.tmpfs[target].replace("noexec", options)})


def profile(*, allow: tuple[str, ...] = (), refuse: tuple[str, ...] = ()) -> Change:
    """The seccomp profile with calls added or taken out."""

    def change(spec: ContainerSpec, directory: Path) -> ContainerSpec:
        assert spec.seccomp_profile is not None
        made = json.loads(spec.seccomp_profile.read_text())
        for rule in made["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in refuse]
        made["syscalls"] = [rule for rule in made["syscalls"] if rule["names"]]
        if allow:
            made["syscalls"].append({"names": list(allow), "action": "SCMP_ACT_ALLOW"})
        path = directory / "seccomp.json"
        path.write_text(json.dumps(made))
        return replace(spec, seccomp_profile=path)

    return change


def source(file: str, old: str, new: str) -> Change:
    """The supervisor itself with one line taken out."""

    def change(spec: ContainerSpec, directory: Path) -> ContainerSpec:
        copy = directory / "sandboxd"
        shutil.copytree(PROJECT / "sandbox_image/sandboxd", copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / file).read_text()
        assert text.count(old) == 1, f"{file} has no such line any more"
        (copy / file).write_text(text.replace(old, new))
        directory.chmod(0o755)
        return replace(spec, mounts=(*spec.mounts, Mount(copy, "/opt/sandboxd/sandboxd", read_only=True)))

    return change


def image_file(old: str, new: str) -> Change:
    """The image's description with one more path in it."""

    def change(spec: ContainerSpec, directory: Path) -> ContainerSpec:
        text = (PROJECT / "sandbox_image/image.json").read_text()
        assert text.count(old) == 1
        path = directory / "image.json"
        path.write_text(text.replace(old, new))
        directory.chmod(0o755)
        return replace(spec, mounts=(*spec.mounts, Mount(path, "/opt/sandboxd/image.json", read_only=True)))

    return change


LANDLOCK_CALLS = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")

SPECS: dict[str, tuple[Change, set[str]]] = {
    "executable workspace": (mounted("/workspace", "exec"), {"noexec", "workspace_copy"}),
    "executable repository": (mounted("/repository", "exec"), {"noexec", "workspace_copy"}),
    "executable scratch": (mounted("/tmp", "exec"), {"noexec", "workspace_copy"}),
    "the engine's own filter": (lambda spec, _: replace(spec, seccomp_profile=None), {"memfd", "seccomp"}),
    "memfd allowed": (profile(allow=("memfd_create",)), {"memfd"}),
    "tracing allowed": (profile(allow=("ptrace",)), {"seccomp"}),
    "io_uring allowed": (profile(allow=("io_uring_setup",)), {"seccomp"}),
    "namespaces allowed": (profile(allow=("unshare",)), {"seccomp"}),
    "execveat allowed": (profile(allow=("execveat",)), {"seccomp"}),
    "no Landlock": (profile(refuse=LANDLOCK_CALLS), {"landlock", "unlisted_program", "file_outside_grants"}),
    "no init": (lambda spec, _: replace(spec, init=False), {"identity"}),
    "a domain never entered": (
        source("kernel.py", "    syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)\n", "    return\n"),
        {"unlisted_program", "loader", "started_by_listed", "file_outside_grants", "signal_scope", "tcp_ports"},
    ),
    "readable programs": (image_file('"/etc/ld.so.cache",', '"/etc/ld.so.cache", "/usr/bin",'), {"loader"}),
    "no limit on signals": (
        source("domain.py", "SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if abi", "0 if abi"),
        {"signal_scope"},
    ),
    "no limit on ports": (source("domain.py", "BIND_TCP | CONNECT_TCP if abi", "0 if abi"), {"tcp_ports"}),
    "every caller admitted": (
        source("server.py", "return peer_uid(stream) != os.getuid()", "return True"),
        {"peer_check"},
    ),
}

HOSTS: dict[str, tuple[HostChange, set[str]]] = {
    "capabilities kept": (lambda config: config.update(CapDrop=[]), {"capabilities"}),
    "a capability added": (lambda config: config.update(CapAdd=["NET_RAW"]), {"capabilities"}),
    "new privileges": (
        lambda config: config.update(SecurityOpt=[o for o in config["SecurityOpt"] if "privileges" not in o]),
        {"no_new_privileges"},
    ),
    "no filter": (
        lambda config: config.update(SecurityOpt=["no-new-privileges:true", "seccomp=unconfined"]),
        {"memfd", "seccomp"},
    ),
    "a writable root": (lambda config: config.update(ReadonlyRootfs=False), {"read_only_root"}),
    "no limit on processes": (lambda config: config.update(PidsLimit=0), {"processes_limit"}),
    "no limit on memory": (lambda config: config.update(Memory=0, MemorySwap=0), {"memory_limit"}),
}


def found(sandbox: Sandbox, expected: set[str]) -> None:
    status = sandbox.client.status()
    failed = {check.name for check in status.failed}
    assert expected <= failed, {check.name: check.evidence for check in status.failed}
    assert status.kernel_gate is KernelGate.BROKEN
    sandbox.list("/usr/bin/true")
    with pytest.raises(KernelGateBroken) as refused:
        sandbox.run("/usr/bin/true")
    assert expected <= set(refused.value.fields["checks"])  # type: ignore[call-overload]


@pytest.mark.parametrize("missing", list(SPECS))
def test_a_missing_layer_is_found(engine: DockerEngine, images: SessionImages, tmp_path: Path, missing: str) -> None:
    change, expected = SPECS[missing]
    with weakened(engine, images.sandbox, tmp_path, change=change) as sandbox:
        found(sandbox, expected)


@pytest.mark.parametrize("missing", list(HOSTS))
def test_a_missing_flag_is_found(engine: DockerEngine, images: SessionImages, tmp_path: Path, missing: str) -> None:
    host, expected = HOSTS[missing]
    with weakened(engine, images.sandbox, tmp_path, host=host) as sandbox:
        found(sandbox, expected)


def test_with_everything_in_place_every_check_passes(shared_sandbox: Sandbox) -> None:
    status = shared_sandbox.client.status()
    assert status.failed == ()
    assert status.kernel_gate is KernelGate.ENFORCED
    assert {check.name for check in status.checks} >= set().union(*(names for _, names in SPECS.values()))
    assert all(check.evidence for check in status.checks)


def test_without_landlock_commands_run_only_where_that_was_chosen(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    def gate_only(spec: ContainerSpec, directory: Path) -> ContainerSpec:
        return replace(profile(refuse=LANDLOCK_CALLS)(spec, directory), environment={"SANDBOXD_GATE_ONLY": "1"})

    with weakened(engine, images.sandbox, tmp_path, change=gate_only) as sandbox:
        status = sandbox.client.status()
        assert status.kernel_gate is KernelGate.GATE_ONLY
        assert status.landlock_abi == 0
        sandbox.list("/usr/bin/python3")
        assert sandbox.python("print(1)").stdout == b"1\n"
        ran = sandbox.python(STUBBORN, limits=CommandLimits(wall_s=60))
        assert ran.exited.exit_code == 0
        assert eventually(lambda: settled(sandbox))


def test_choosing_the_gate_alone_waives_nothing_of_the_container(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    def gate_only(spec: ContainerSpec, _: Path) -> ContainerSpec:
        return replace(spec, environment={"SANDBOXD_GATE_ONLY": "1"})

    with weakened(
        engine, images.sandbox, tmp_path, change=gate_only, host=lambda config: config.update(CapDrop=[])
    ) as sandbox:
        found(sandbox, {"capabilities"})


def test_on_an_older_kernel_the_tree_is_found_by_scanning(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    """Without a scope for signals the monitor never signals everybody, and still ends exactly its own tree."""
    older = source("domain.py", "ABI_SCOPES = 6", "ABI_SCOPES = 99")
    with weakened(engine, images.sandbox, tmp_path, change=older) as sandbox:
        assert sandbox.client.status().kernel_gate is KernelGate.ENFORCED
        sandbox.list("/usr/bin/python3")
        ran = sandbox.python(STUBBORN + "\ntime.sleep(600)", limits=CommandLimits(wall_s=1.0))
        assert ran.exited.stopped_by is StoppedBy.WALL
        assert eventually(lambda: settled(sandbox))
        assert sandbox.python("print(1)").stdout == b"1\n"


def test_a_container_of_root_is_never_served(engine: DockerEngine, images: SessionImages, tmp_path: Path) -> None:
    """Its self-test fails, and its caller has the same uid, so nobody can even ask."""
    with socket_directory(test_uid()) as sockets:
        sockets.chmod(0o777)
        name = f"sandbox-root-{os.getpid()}"
        spec = replace(sandbox_spec(images.sandbox, sockets, name=name, uid=0), gid=0)
        engine.start(spec)
        try:
            assert eventually(lambda: "self-test: identity failed" in engine.logs(name))
        finally:
            engine.remove(name)
