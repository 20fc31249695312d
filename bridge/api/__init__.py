"""HTTP control, health and metrics."""
