"""Protocol Buffers definitions, and the code that ``make proto`` generates from them.

Each ``<name>.proto`` here becomes ``<name>_pb2.py`` with its types in ``<name>_pb2.pyi``, and
``<name>_pb2_grpc.py`` where it defines a service. All are committed; a test generates them anew.
"""
