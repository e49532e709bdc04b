"""Harbour Hotels back office."""
