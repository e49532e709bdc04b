"""How operators ask: one file per noun."""
