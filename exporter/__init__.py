"""Network flows into ClickHouse, Prometheus, Alertmanager and Grafana.

The sub-packages stand in the order in which a flow passes them: ``receive``, ``decode``,
``enrich``, ``store``, ``metrics``, ``policies``, ``incidents``.
"""

__version__ = "0.1.0"
