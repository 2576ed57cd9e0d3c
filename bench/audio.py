"""Measure the audio path: `python -m bench.audio`.

Prints the quality of the resamplers on linear PCM, and the CPU time of each step for a 20 ms frame. Each
step runs alone and with warm caches; the best of several repeats counts, to exclude other load on the
machine.
"""

from __future__ import annotations

import itertools
import platform
import timeit
from collections.abc import Callable

import numpy as np
import soxr
from rich.console import Console
from rich.table import Table

from bench import measure_audio as measure
from bridge.audio import g711
from bridge.audio.energy import SpeechDetector, is_audible
from bridge.audio.resample import DELAY, Downsampler, Upsampler
from bridge.audio.transcode import Pcm16k

REPEATS, CALLS_PER_REPEAT = 7, 2000


def microseconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, number=CALLS_PER_REPEAT, repeat=REPEATS)) / CALLS_PER_REPEAT * 1e6


def quality() -> Table:
    table = Table("what", "up, 8 to 16 kHz", "down, 16 to 8 kHz", title="Resampling, in frames of 20 ms")
    figures = measure.measure_resampling()
    narrow, wide = measure.multi_tone(8000), measure.multi_tone(16000)
    snr_up = measure.snr_db(measure.upsample(narrow), soxr.resample(narrow, 8000, 16000, "VHQ"), DELAY)
    snr_down = measure.snr_db(measure.downsample(wide), soxr.resample(wide, 16000, 8000, "VHQ"), DELAY / 2)
    table.add_row(
        "300-3400 Hz flat within", f"{figures.up_flatness:.3f} dB", f"{figures.down_flatness:.3f} dB"
    )
    table.add_row(
        "worst image, worst alias", f"{figures.worst_image:.1f} dB", f"{figures.worst_alias:.1f} dB"
    )
    for hertz in measure.TRANSITION:
        up = f"{measure.up_gain(hertz):.1f} dB" if hertz < 4000 else "-"
        down = f"{measure.down_gain(hertz):.1f} dB" if hertz < 4000 else f"{measure.alias(hertz):.1f} dB"
        table.add_row(f"{'gain' if hertz < 4000 else 'fold'} at {hertz} Hz", up, down)
    table.add_row("delay", f"{figures.up_delay_ms:.2f} ms", f"{figures.down_delay_ms:.2f} ms")
    table.add_row("SNR against soxr VHQ, aligned", f"{snr_up:.1f} dB", f"{snr_down:.1f} dB")
    return table


def cost() -> Table:
    table = Table("step", "us per 20 ms frame", title="CPU time")
    pcm, pcm_16k = measure.multi_tone(8000)[:160], measure.multi_tone(16000)[:320]
    ulaw, chunk = g711.encode(pcm), pcm_16k.astype("<i2").tobytes()
    silence = bytes([g711.SILENCE]) * len(ulaw)
    up, down = Upsampler(), Downsampler()
    transcoder, detector, clock = Pcm16k(), SpeechDetector(), itertools.count()
    steps: dict[str, Callable[[], object]] = {
        "decode": lambda: g711.decode(ulaw),
        "encode": lambda: g711.encode(pcm),
        "up": lambda: up.feed(pcm),
        "down": lambda: down.feed(pcm_16k),
        "to assistant, whole": lambda: transcoder.to_assistant(ulaw),
        "to caller, whole": lambda: transcoder.to_caller(chunk),
        "speech detector": lambda: detector.feed(ulaw, next(clock) * 0.020),
        "is_audible, speech": lambda: is_audible(ulaw),
        "is_audible, silence": lambda: is_audible(silence),
    }
    for name, call in steps.items():
        table.add_row(name, f"{microseconds(call):.1f}")
    return table


if __name__ == "__main__":
    console = Console()
    console.print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    console.print(quality())
    console.print(cost())
