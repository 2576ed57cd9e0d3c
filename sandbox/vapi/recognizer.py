"""Speech recognition with pocketsphinx, in a process of its own.

Each simulator has one recognizer process. A thread would not be enough: building a decoder holds Python's
GIL for 100 to 300 ms and decoding for 50 ms, which would delay the paced audio of this process. Protocol
over pipes: a 4-byte length and that many bytes of 16 kHz PCM in, one line of JSON out.

The grammar consists of the caller's sentences in the manifest. A decoder adapts to the voice it has heard,
so each utterance gets a new one, built in advance; the same audio then always gives the same words.
"""

import asyncio
import contextlib
import json
import os
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sandbox.speech import audio as sound
from sandbox.speech.audio import Pcm

RATE = 16_000
RESULT_TIMEOUT_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parents[2]


def can_recognize() -> bool:
    return find_spec("pocketsphinx") is not None


class SpeechRecognizer:
    """The parent's end. `recognize` returns the words, or an empty string if nothing was recognized."""

    def __init__(self) -> None:
        self.failures = 0  # utterances lost because the process died or timed out
        self.process: asyncio.subprocess.Process | None = None  # started when first needed
        self._lock = asyncio.Lock()  # one utterance at a time, in order

    async def warm_up(self) -> None:
        async with self._lock:
            await self._running_process()

    async def recognize(self, pcm: Pcm, rate: int) -> str:
        audio = sound.resample(pcm, rate, RATE).astype("<i2").tobytes()
        async with self._lock:
            try:
                async with asyncio.timeout(RESULT_TIMEOUT_SECONDS):
                    process = await self._running_process()
                    assert process.stdin is not None and process.stdout is not None
                    process.stdin.write(struct.pack("<I", len(audio)) + audio)
                    await process.stdin.drain()
                    answer = json.loads(await process.stdout.readline())
            except (TimeoutError, OSError, ValueError):
                self.failures += 1
                await self._kill()
                return ""
            return str(answer["text"])

    async def stop(self) -> None:
        async with self._lock:
            await self._kill()

    async def _running_process(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            # The child imports only `sandbox.speech.audio` and pocketsphinx; the path is for the first.
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sandbox.vapi.recognizer",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self.process

    async def _kill(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # The transport closes its pipes in the next iteration of the loop, which may be about to close.
        await asyncio.sleep(0)


def grammar(sentences: list[str]) -> str:
    return f"#JSGF V1.0; grammar caller; public <sentence> = {' | '.join(sentences)};"


def _new_decoder(jsgf: str) -> Any:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="FATAL", lm=None)
    decoder.add_jsgf_string("caller", jsgf)
    decoder.activate_search("caller")
    return decoder


def serve() -> None:
    """The child process: utterances from stdin, words to stdout, until stdin closes."""
    sentences = [clip.text for clip in sound.load_clips().values() if clip.speaker == "caller"]
    jsgf = grammar(sentences)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    decoder = _new_decoder(jsgf)
    while len(head := source.read(4)) == 4:
        audio = source.read(struct.unpack("<I", head)[0])
        text = ""
        if audio:  # process_raw rejects empty audio
            decoder.start_utt()
            decoder.process_raw(audio, full_utt=True)
            decoder.end_utt()
            hypothesis = decoder.hyp()
            text = str(hypothesis.hypstr) if hypothesis else ""
        sink.write(json.dumps({"text": text}).encode() + b"\n")
        sink.flush()
        decoder = _new_decoder(jsgf)


if __name__ == "__main__":
    serve()
