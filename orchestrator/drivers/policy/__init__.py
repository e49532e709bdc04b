"""The allowlist's file."""
