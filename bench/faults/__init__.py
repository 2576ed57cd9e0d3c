"""Stages faults against a real server and says whether it behaves as promised: `python -m bench.faults`."""
