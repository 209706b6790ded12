"""Store: writing to and asking ClickHouse, and the embedded ClickHouse."""
