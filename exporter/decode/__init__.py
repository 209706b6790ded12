"""Decode: datagrams to flow batches, a module per protocol."""
