"""The steps of the schema, oldest first; each file names the one before it."""
