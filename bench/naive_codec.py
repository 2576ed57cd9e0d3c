"""G.711 tables for the benchmarks. They share no code with the product that they measure."""

from __future__ import annotations

import numpy as np

_codes = ~np.arange(256, dtype=np.int32)
_magnitude = (((_codes & 0x0F) << 3) + 0x84) << ((_codes & 0x70) >> 4)
DECODE = np.where(_codes & 0x80, 0x84 - _magnitude, _magnitude - 0x84).astype(np.int16)
_order = np.argsort(DECODE, kind="stable")
_levels = DECODE[_order].astype(np.float64)
_nearest = np.searchsorted((_levels[1:] + _levels[:-1]) / 2, np.arange(-32768, 32768))
ENCODE = _order[_nearest].astype(np.uint8)
