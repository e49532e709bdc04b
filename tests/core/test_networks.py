"""Network profiles: exact pairs only, and a configuration that allows nothing else."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from pydantic import ValidationError

from orchestrator.core.networks import NetworkProfile, outward, ports, squid_configuration


@pytest.mark.parametrize(
    "target", ["*.example.com:443", "example.com", "Example.com:443", "a b:1", "x:99999", ":1", "localhost:1"]
)
def test_only_exact_pairs_can_be_listed(target: str) -> None:
    with pytest.raises(ValidationError):
        NetworkProfile(reaches=(target,))


def test_each_profile_has_a_port_and_only_its_own_pairs() -> None:
    profiles = {
        "b": NetworkProfile(reaches=("example.com:443",)),
        "a": NetworkProfile(reaches=("10.1.2.3:80",), private=True),
    }
    assert ports(profiles) == {"a": 3128, "b": 3129}
    text = squid_configuration(profiles, listen="10.0.0.4").splitlines()
    allowed = [line for line in text if line.startswith("http_access allow")]
    assert allowed == [
        "http_access allow from_a host_a_0 port_a_0",
        "http_access allow from_b host_b_0 port_b_0",
    ]
    assert "http_access deny from_b private" in text
    assert "http_access deny from_a private" not in text
    assert text[-1] == "http_access deny all"
    assert "acl host_a_0 dst 10.1.2.3" in text and "acl host_b_0 dstdomain -n example.com" in text


def test_every_tenant_has_an_address_outward() -> None:
    plan = IPv4Network("10.213.0.0/16")
    subnet, gateway, address = outward(plan, 2_000)
    assert (str(subnet), gateway, address) == ("10.213.240.0/20", "10.213.240.1", "10.213.247.224")
    with pytest.raises(ValueError, match="has no address"):
        outward(plan, 5_000)
