"""Queries: libpq driven by hand, behind a relay that counts every byte, watched by another role."""
