"""How people ask: pages, one file per noun."""
