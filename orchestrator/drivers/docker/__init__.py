"""The container engine behind the Engine port: pure builders of its arguments beside what sends them."""
