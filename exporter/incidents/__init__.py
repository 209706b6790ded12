"""Incidents: alerts that come home from Prometheus and Alertmanager."""
