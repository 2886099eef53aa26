"""The trainer of the bundled model; the worker itself imports nothing from here."""
