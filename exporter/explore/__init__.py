"""The Data Explorer's questions as SQL, for dashboards and for the command line."""
