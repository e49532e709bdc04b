"""The demo production and what it is made of."""
