"""Metrics: what Prometheus scrapes."""
