"""A seeded small datacenter that sends real flow packets, and the encoders behind it."""
