"""The caller's side of sandboxd: one connection per request, checked for who is at the other end."""

from orchestrator.drivers.sandboxd.client import SandboxdClient, SandboxdClients

__all__ = ["SandboxdClient", "SandboxdClients"]
