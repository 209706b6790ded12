"""Why not everything can run; the text says what to do."""

from __future__ import annotations


class UpError(Exception):
    """Something that a person has to mend first."""
