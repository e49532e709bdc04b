"""Notices sent to other programs over HTTP."""
