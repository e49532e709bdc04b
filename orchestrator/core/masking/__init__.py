"""Masking and row filters: every column of production is classified, or there is no snapshot. Pure."""
