"""Traefik by its file provider: one small YAML file a route, written by PyYAML and replaced by rename(2)."""
