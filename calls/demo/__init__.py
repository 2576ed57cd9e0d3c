"""The demonstration: a whole call on this machine, and a verdict on everything that crossed.

Commands only: nothing of a server in production imports this package.
"""
