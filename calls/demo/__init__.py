"""The demo: a simulated call against a real server on this machine, and checks of everything it produced.

Used by management commands and tests only: nothing in a production server imports this package.
"""
