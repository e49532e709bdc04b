"""PostgreSQL: instances, roles, snapshots, differences and the way back."""
