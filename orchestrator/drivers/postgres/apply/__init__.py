"""Applying a changeset to production: the only code that holds its write credential."""
