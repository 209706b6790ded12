"""Enrich: names for what the records only number."""
