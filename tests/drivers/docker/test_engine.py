"""The engine driver against the real engine: hardening as seen from inside, ownership, replacement, networks."""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.ports.engine import (
    Attachment,
    ContainerLimits,
    ContainerSpec,
    EngineFailed,
    EngineUnreachable,
    ImageMissing,
    Mount,
    NetworkSpec,
    NoSuchContainer,
    NotOurs,
)
from orchestrator.drivers.docker.arguments import create_body
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from tests.support.engine import SessionImages, clean_up

pytestmark = pytest.mark.engine

LIMITS = ContainerLimits(memory_bytes=64 << 20, cpus=0.5, pids=32)
DEADLINE_S = 60.0


@pytest.fixture
def prefix() -> str:
    return f"machine-{secrets.token_hex(3)}"


@pytest.fixture
def mine(engine: DockerEngine) -> Iterator[DockerEngine]:
    """An installation of its own on the same engine, so that a listing sees this test's containers alone."""
    own = DockerEngine(f"{engine.instance}-{secrets.token_hex(2)}", engine.connection)
    yield own
    clean_up(own)


@pytest.fixture
def spec(prefix: str, images: SessionImages) -> ContainerSpec:
    return ContainerSpec(
        name=f"{prefix}-a",
        image=images.base,
        argv=("sleep", "600"),
        uid=20_900,
        gid=20_900,
        limits=LIMITS,
        role="sandbox",
        tenant_id="tmachine",
        generation_id="gmachine",
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=1m"},
        init=True,
    )


def ended(engine: DockerEngine, name: str) -> int:
    """Wait for a container's end and return its exit code."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = engine.observe(name)
        assert found is not None
        if not found.running and found.exit_code is not None:
            return found.exit_code
        time.sleep(0.02)
    raise AssertionError(f"{name} still runs: {engine.logs(name)}")


def output(engine: DockerEngine, spec: ContainerSpec, script: str) -> str:
    """What a shell script prints inside such a container."""
    one = replace(spec, name=f"{spec.name}-{secrets.token_hex(2)}", argv=("sh", "-c", script))
    engine.start(one)
    ended(engine, one.name)
    text = engine.logs(one.name)
    engine.remove(one.name)
    return text


def address_plan() -> Callable[[], str]:
    """Subnets out of a range nothing else here uses, a new one each time."""
    third = secrets.randbelow(200) + 20

    def subnet() -> str:
        return f"10.231.{third}.{secrets.randbelow(15) * 16}/28"

    return subnet


def test_hardening_holds_inside(mine: DockerEngine, spec: ContainerSpec) -> None:
    script = (
        "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u; id -g;"
        "touch /root-is-writable 2>/dev/null && echo WRITABLE; cp /bin/true /tmp/t && /tmp/t 2>/dev/null && echo RAN;"
        "cat /proc/kcore >/dev/null 2>&1 && [ -s /proc/kcore ] && echo KCORE; ulimit -c; echo end"
    )
    lines = output(mine, spec, script).split("\n")
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {status["CapPrm"], status["CapEff"], status["CapBnd"]} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "20900" in lines
    assert "WRITABLE" not in lines and "RAN" not in lines and "KCORE" not in lines
    assert lines[-2] == "end" and lines[-3] == "0"


def test_the_engine_recorded_every_limit(mine: DockerEngine, spec: ContainerSpec) -> None:
    made = mine.start(spec)
    found = mine.connection.api.inspect_container(made.id)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["Privileged"]
    assert host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes
    assert host["NanoCpus"] == 500_000_000 and host["PidsLimit"] == 32
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"]["Config"]["max-size"] and found["HostConfig"]["NetworkMode"] == "none"
    assert found["Config"]["Labels"]["orchestrator.tenant"] == "tmachine"


@pytest.mark.parametrize("loopback", [True, False])
def test_without_a_network_there_is_nothing_to_talk_to(mine: DockerEngine, spec: ContainerSpec, loopback: bool) -> None:
    script = "readlink /proc/self/ns/net; tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route | wc -l"
    space, *seen = output(mine, replace(spec, loopback=loopback), script).split()
    assert space.startswith("net:[") and space != Path("/proc/self/ns/net").readlink().name
    assert seen == ["lo", "0"], "one interface, and no way to anywhere"


def test_a_seccomp_profile_is_in_force(mine: DockerEngine, spec: ContainerSpec, tmp_path: Path) -> None:
    profile = tmp_path / "seccomp.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = "mkdir /tmp/d && echo MADE; echo end"
    assert "MADE" in output(mine, spec, script)
    assert "MADE" not in output(mine, replace(spec, seccomp_profile=profile), script)


def test_processes_are_limited(mine: DockerEngine, spec: ContainerSpec) -> None:
    script = "for i in $(seq 60); do sleep 5 & done 2>&1; echo end"
    assert "fork" in output(mine, replace(spec, init=False), script)


def test_start_is_idempotent_and_another_spec_replaces(mine: DockerEngine, spec: ContainerSpec) -> None:
    first = mine.start(spec)
    assert first.running and first.pid > 0 and first.started_at is not None
    assert mine.start(spec).id == first.id
    changed = mine.start(replace(spec, environment={"A": "1"}))
    assert changed.id != first.id
    mine.stop(spec.name)
    stopped = mine.observe(spec.name)
    assert stopped is not None and not stopped.running
    assert mine.start(replace(spec, environment={"A": "1"})).id == changed.id


def test_what_something_else_keeps_is_used_and_never_replaced(mine: DockerEngine, spec: ContainerSpec) -> None:
    body = create_body(spec, mine.instance)
    body["Labels"] |= {"orchestrator.spec": "", "orchestrator.kept-by": "docker compose"}
    made = mine.connection.api.create_container_from_config(body, spec.name)["Id"]
    assert mine.start(spec).id == made
    mine.stop(spec.name)
    again = mine.start(replace(spec, environment={"A": "1"}))
    assert again.id == made and again.running


def test_a_listing_tells_running_ended_and_tenant(mine: DockerEngine, spec: ContainerSpec) -> None:
    mine.start(spec)
    other = replace(spec, name=f"{spec.name}-b", tenant_id="tother", argv=("sh", "-c", "exit 7"), role="pool")
    mine.start(other)
    ended(mine, other.name)
    found = {container.name: container for container in mine.containers()}
    assert set(found) == {spec.name, other.name}
    assert found[spec.name].running and found[spec.name].generation_id == "gmachine"
    assert found[other.name].exit_code == 7 and found[other.name].role == "pool"
    assert [container.name for container in mine.containers(tenant_id="tother")] == [other.name]


def test_foreign_containers_and_networks_are_never_touched(
    mine: DockerEngine, engine: DockerEngine, spec: ContainerSpec, prefix: str
) -> None:
    theirs = engine.start(spec)
    network = NetworkSpec(f"{prefix}-n", address_plan()())
    engine.ensure_network(network)
    try:
        assert mine.observe(spec.name) is None
        assert spec.name not in [container.name for container in mine.containers()]
        refused: list[Callable[[], object]] = [
            lambda: mine.start(spec),
            lambda: mine.stop(spec.name),
            lambda: mine.kill(spec.name),
            lambda: mine.remove(spec.name),
            lambda: mine.logs(spec.name),
            lambda: mine.ensure_network(network),
            lambda: mine.remove_network(network.name),
        ]
        for attempt in refused:
            with pytest.raises(NotOurs):
                attempt()
        still = engine.observe(spec.name)
        assert still is not None and still.running and still.id == theirs.id
    finally:
        engine.remove(spec.name)
        engine.remove_network(network.name)


def test_what_is_not_there_is_fine_or_named(mine: DockerEngine, spec: ContainerSpec) -> None:
    mine.stop(spec.name)
    mine.remove(spec.name)
    mine.remove_network(f"{spec.name}-n")
    mine.detach("no-such-network", spec.name)
    assert mine.observe(spec.name) is None
    with pytest.raises(NoSuchContainer):
        mine.kill(spec.name)
    with pytest.raises(NoSuchContainer):
        mine.stats(spec.name)
    with pytest.raises(ImageMissing):
        mine.start(replace(spec, image="orchestrator-nothing:0"))
    assert mine.observe(spec.name) is None


def test_a_container_that_cannot_start_is_not_left_behind(mine: DockerEngine, spec: ContainerSpec) -> None:
    with pytest.raises(Exception, match="could not be started"):
        mine.start(replace(spec, argv=("/no/such/program",), init=False))
    assert mine.observe(spec.name) is None


def test_an_engine_that_does_not_answer_is_an_error_not_an_empty_list(tmp_path: Path) -> None:
    away = DockerEngine("nobody", Connection(address=f"unix://{tmp_path}/no.sock", timeout_s=5))
    with pytest.raises(EngineUnreachable):
        away.containers()
    with pytest.raises(EngineUnreachable):
        away.observe("anything")


def test_stop_signal_kill_and_stats(mine: DockerEngine, spec: ContainerSpec) -> None:
    trap = ("sh", "-c", "trap 'echo INT; exit 3' INT; echo up; while :; do sleep 0.05; done")
    mine.start(replace(spec, argv=trap, stop_signal="SIGINT", init=False))
    deadline = time.monotonic() + DEADLINE_S
    while "up" not in mine.logs(spec.name) and time.monotonic() < deadline:
        time.sleep(0.02)
    used = mine.stats(spec.name)
    assert 0 < used.memory_bytes < used.memory_limit_bytes == LIMITS.memory_bytes
    assert used.pids >= 1
    mine.stop(spec.name, timeout_s=30)
    assert "INT" in mine.logs(spec.name)
    mine.start(replace(spec, argv=("sleep", "600"), init=False))
    mine.kill(spec.name)
    assert ended(mine, spec.name) == 137
    mine.kill(spec.name)


def test_mounts_keep_their_source_and_read_only(mine: DockerEngine, spec: ContainerSpec, volume_dir: Path) -> None:
    (volume_dir / "w").mkdir()
    (volume_dir / "w").chmod(0o777)
    (volume_dir / "r").mkdir()
    (volume_dir / "r" / "f").write_text("seen")
    (volume_dir / "r").chmod(0o777)
    mounted = replace(spec, mounts=(Mount(volume_dir / "w", "/w"), Mount(volume_dir / "r", "/r", read_only=True)))
    text = output(
        mine,
        mounted,
        "cat /r/f; touch /r/x 2>/dev/null && echo WROTE; cp /bin/true /w/t && /w/t 2>/dev/null && echo RAN; echo end",
    )
    assert "seen" in text and "end" in text
    assert "WROTE" not in text
    assert (volume_dir / "w" / "t").exists()
    assert "RAN" not in text, "the volume's noexec must reach into a writable mount"
    with pytest.raises(Exception, match="does not exist"):
        mine.start(replace(spec, name=f"{spec.name}-m", mounts=(Mount(volume_dir / "absent", "/w"),)))


def networked(mine: DockerEngine, spec: ContainerSpec, prefix: str) -> tuple[ContainerSpec, NetworkSpec, list[str]]:
    """A container on a network of its own, and addresses of that network: host's, first, second."""
    subnet = address_plan()
    network = NetworkSpec(f"{prefix}-n", subnet(), "tmachine")
    for _ in range(20):
        try:
            mine.ensure_network(network)
            break
        except Exception:
            network = replace(network, subnet=subnet())
    first, _, last = network.subnet.removesuffix("/28").rpartition(".")
    addresses = [f"{first}.{int(last) + offset}" for offset in (1, 3, 4)]
    return replace(spec, networks=(Attachment(network.name, addresses[1]),)), network, addresses


def test_a_tenant_network_has_no_way_out(mine: DockerEngine, spec: ContainerSpec, prefix: str) -> None:
    lonely, network, addresses = networked(mine, spec, prefix)
    mine.ensure_network(network)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        host = [addresses[0], *sorted(_own_addresses())[:6]]
        tries = [f"timeout 2 bash -c '</dev/tcp/{one}/{port}' 2>/dev/null && echo REACHED {one}" for one in host]
        tries.append("timeout 3 getent ahosts debian.org && echo RESOLVED")
        text = output(mine, lonely, " ".join(f"({one}) &" for one in tries) + " wait; echo end")
    assert text == "end\n"
    assert addresses[0] not in _own_addresses(), "the host must have no address on the tenant's network"


def _own_addresses() -> set[str]:
    """Every IPv4 address of this host but the loopback's."""
    local = re.findall(r"-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text())
    return {one for one in local if not one.startswith("127.")}


def test_memberships_move_live_and_networks_go_safely(mine: DockerEngine, spec: ContainerSpec, prefix: str) -> None:
    member, network, addresses = networked(mine, spec, prefix)
    mine.start(member)
    guest = replace(spec, name=f"{spec.name}-g", networks=())
    edge, _, edge_addresses = networked(mine, guest, f"{prefix}-e")
    mine.start(edge)
    mine.attach(network.name, edge.name, addresses[2])
    mine.attach(network.name, edge.name, addresses[2])
    seen = mine.observe(edge.name)
    assert seen is not None and network.name in seen.networks
    assert mine.start(edge).id == seen.id, "an added membership does not make it another container"
    mine.stop(member.name)
    mine.remove_network(network.name)
    assert network.name not in mine.networks()
    after = mine.observe(edge.name)
    assert after is not None and after.running and network.name not in after.networks
    mine.ensure_network(network)
    again = mine.start(member)
    assert again.running and network.name in again.networks
    mine.detach(network.name, edge.name)
    assert edge_addresses


def test_what_a_deleted_installation_left_on_the_addresses_makes_way_and_nothing_else_does(
    mine: DockerEngine, engine: DockerEngine, spec: ContainerSpec, prefix: str
) -> None:
    member, left, _ = networked(mine, spec, prefix)
    mine.ensure_network(left)
    wanted = replace(left, name=f"{prefix}-wanted")
    mine.start(member)
    with pytest.raises(EngineFailed, match=f"{left.name} has addresses") as refusal:
        mine.ensure_network(wanted)
    assert f"docker network rm {left.name}" in refusal.value.next_step
    with pytest.raises(EngineFailed, match=f"{left.name} has addresses"):
        engine.ensure_network(wanted)  # another installation's: it may only say whose they are
    mine.remove(member.name)
    mine.ensure_network(wanted)
    assert mine.networks() == [wanted.name]
