"""What every container gets, whatever its specification says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ports.engine import Attachment, ContainerLimits, ContainerSpec, Mount, NetworkSpec
from orchestrator.drivers.docker.arguments import create_body, network_arguments, network_differs, spec_digest

SPEC = ContainerSpec(
    name="one",
    image="image:1",
    argv=("/bin/true", "x"),
    uid=20001,
    gid=20001,
    limits=ContainerLimits(memory_bytes=64 << 20, cpus=0.5, pids=16),
    role="sandbox",
    tenant_id="t1",
)


@given(
    uid=st.integers(min_value=1, max_value=60_000),
    environment=st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=5)),
    read_only=st.booleans(),
    has_network=st.booleans(),
    init=st.booleans(),
    loopback=st.booleans(),
)
def test_hardening_cannot_be_switched_off(
    uid: int, environment: dict[str, str], read_only: bool, has_network: bool, init: bool, loopback: bool
) -> None:
    spec = replace(
        SPEC,
        uid=uid,
        environment=environment,
        mounts=(Mount(Path("/a"), "/b", read_only),),
        networks=(Attachment("n", "10.0.0.3"),) if has_network else (),
        init=init,
        loopback=loopback,
    )
    body = create_body(spec, "here")
    host = body["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Privileged"] is False
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["MemorySwap"] == host["Memory"] == 64 << 20
    assert host["PidsLimit"] == 16
    assert host["LogConfig"]["Config"]["max-size"]
    assert body["Healthcheck"] == {"Test": ["NONE"]}
    assert body["User"] == f"{uid}:20001"
    assert host["NetworkMode"] == ("n" if has_network else "none")
    assert body.get("NetworkDisabled", False) is (not has_network and not loopback)
    assert body["Labels"]["orchestrator.instance"] == "here"


def test_any_difference_in_a_specification_changes_its_digest() -> None:
    assert spec_digest(SPEC) == spec_digest(replace(SPEC))
    others = [
        replace(SPEC, image="image:2"),
        replace(SPEC, limits=ContainerLimits(64 << 20, 0.6, 16)),
        replace(SPEC, environment={"A": "1"}),
        replace(SPEC, published=(("127.0.0.1", 1, 2),)),
    ]
    assert len({spec_digest(spec) for spec in (SPEC, *others)} | {spec_digest(SPEC, "{}")}) == 6


def test_a_network_without_a_gateway_keeps_the_host_off_it_on_every_engine() -> None:
    spec = NetworkSpec("n", "10.0.0.0/28", "t1")
    old = network_arguments(spec, "here", isolated_mode=False)
    new = network_arguments(spec, "here", isolated_mode=True)
    assert old["options"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
    assert new["options"] == {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}
    assert old["internal"] is new["internal"] is True


def test_a_network_with_another_subnet_or_reach_differs() -> None:
    spec = NetworkSpec("n", "10.0.0.0/28")
    found = {"Internal": True, "IPAM": {"Config": [{"Subnet": "10.0.0.0/28"}]}}
    assert not network_differs(found, spec)
    assert network_differs(found, replace(spec, subnet="10.0.0.16/28"))
    assert network_differs(found, replace(spec, internal=False))


def test_a_named_program_replaces_the_images_entry_point_and_none_keeps_it() -> None:
    named = create_body(SPEC, "here")
    assert named["Entrypoint"] == ["/bin/true"] and named["Cmd"] == ["x"]
    kept = create_body(replace(SPEC, argv=()), "here")
    assert "Entrypoint" not in kept and "Cmd" not in kept
