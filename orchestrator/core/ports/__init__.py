"""The contracts between flows and the outside world, one Protocol per driver, errors beside them."""
