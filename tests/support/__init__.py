"""What tests share: real servers, started once, and template databases cloned per test."""
