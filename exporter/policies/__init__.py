"""Policies: what is watched, evaluated in ClickHouse, exposed to Prometheus."""
