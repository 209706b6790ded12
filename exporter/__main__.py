"""``python -m exporter`` is ``flow-exporter``."""

from exporter.cli import main

if __name__ == "__main__":
    main()
