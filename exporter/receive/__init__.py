"""Receive: bytes from sockets and files, as batches of datagrams."""
