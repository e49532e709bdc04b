"""The pool in front of a tenant's live generation: PgBouncer in a container without a network."""
