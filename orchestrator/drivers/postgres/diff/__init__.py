"""The differ: which blocks changed, the rows in them from both sides, and what follows for each table."""
