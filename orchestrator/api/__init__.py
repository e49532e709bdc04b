"""How programs ask: JSON under /api/v1, one router per noun."""
