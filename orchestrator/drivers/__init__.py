"""What is touched: the outside world, each pure builder beside its executor."""
