"""Generates the speech clips and their manifest: `python -m sandbox.speech.generate`.

The clips are in the repository; run this only to change a sentence or a voice. It needs the program `flite`
(Debian: `apt-get install flite`) and pocketsphinx (the `speech` extra), which checks that the caller's
sentences are recognized after mu-law.

Each clip is synthesized with flite, filtered to the telephone band, resampled to 8 kHz, normalized to
-6 dBFS, and trimmed so that `speech_end_ms` is exact: a quiet lead, the speech, a 10 ms fade, then silence.
Pauses inside a caller's sentence are shortened, so that a detector with a hangover of 160 ms or more detects
one utterance.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from sandbox.speech import audio
from sandbox.speech.audio import Pcm

RATE = audio.LINE_RATE
WINDOW = audio.WINDOW
PEAK = 32_768 * 10 ** (-6 / 20)
BAND_HZ = (300.0, 3400.0)
LEAD_MS, FADE_MS, TAIL_MS = 40, 10, 80
MAX_PAUSE_MS = 100
MAX_GAP_MS = 140

CALLER_VOICE, ASSISTANT_VOICE = "rms", "slt"
CALLER = {
    "move_appointment": "I need to move my appointment",
    "opening_hours": "what are your opening hours",
    "book_table": "please book a table for four",
    "talk_to_person": "stop I want to talk to a person",
    "correct": "yes that is correct",
    "goodbye": "thank you goodbye",
}
ASSISTANT = {
    "greeting": "Thanks for calling Harbour Dental, how can I help?",
    "which_day": "Of course. Which day would suit you best?",
    "open_hours": "We are open from nine to five, Monday to Friday.",
    "table_booked": "Your table for four is booked.",
    "long_story": "We look after the whole family. We offer cleaning, fillings and crowns.",
    "transfer": "No problem, I will find somebody for you.",
    "sorry": "Sorry, could you say that again?",
    "farewell": "Thank you for calling. Goodbye.",
}


def synthesize(text: str, voice: str) -> Pcm:
    """The sentence spoken by flite, in the telephone band, at 8 kHz with its peak at -6 dBFS."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True, timeout=60)
        pcm, rate = audio.read_wav(path)
    pcm = np.concatenate([pcm, np.zeros(rate // 10, dtype=np.int16)])
    spectrum = np.fft.rfft(pcm.astype(np.float64))
    hertz = np.fft.rfftfreq(len(pcm), 1 / rate)
    spectrum[(hertz < BAND_HZ[0]) | (hertz > BAND_HZ[1])] = 0
    samples = np.fft.irfft(spectrum, len(pcm))
    samples *= PEAK / np.max(np.abs(samples))
    return audio.resample(audio.to_int16(samples), rate, RATE)


def longest_gap_ms(pcm: Pcm) -> int:
    """The longest pause between the first and the last loud window."""
    loud = audio.loud_windows(pcm)
    return max((later - earlier - 1) * 5 for earlier, later in zip(loud, loud[1:], strict=False))


def trim(pcm: Pcm, *, shorten_pauses: bool) -> tuple[Pcm, int, int]:
    """Returns a quiet lead, the speech, a fade and silence; and start and end of the speech in ms."""
    loud = audio.loud_windows(pcm)
    pieces = [pcm[loud[0] * WINDOW : (loud[0] + 1) * WINDOW]]
    for earlier, later in zip(loud, loud[1:], strict=False):
        pause = pcm[(earlier + 1) * WINDOW : later * WINDOW]
        keep = MAX_PAUSE_MS * RATE // 1000
        if shorten_pauses and len(pause) > keep:
            pause = np.concatenate([pause[: keep // 2], pause[-keep // 2 :]])
        pieces += [pause, pcm[later * WINDOW : (later + 1) * WINDOW]]
    fade = pcm[(loud[-1] + 1) * WINDOW :][: FADE_MS * RATE // 1000].astype(np.float64)
    pieces.append(audio.to_int16(fade * np.linspace(1, 0, len(fade))))
    lead = np.zeros(LEAD_MS * RATE // 1000, dtype=np.int16)
    tail = np.zeros(TAIL_MS * RATE // 1000 - len(fade), dtype=np.int16)
    trimmed = np.concatenate([lead, *pieces, tail])
    loud = audio.loud_windows(trimmed)
    return trimmed, loud[0] * 5, (loud[-1] + 1) * 5


def make_clip(name: str, text: str, speaker: str, directory: Path) -> dict[str, str | int]:
    caller = speaker == "caller"
    spoken = synthesize(text, CALLER_VOICE if caller else ASSISTANT_VOICE)
    pcm, start_ms, end_ms = trim(spoken, shorten_pauses=caller)
    if caller and longest_gap_ms(pcm) > MAX_GAP_MS:
        raise SystemExit(f"{name}: a pause of {longest_gap_ms(pcm)} ms is too long; choose other words")
    file = f"{speaker}_{name}.wav"
    audio.write_wav(directory / file, pcm, RATE)
    return {
        "name": name,
        "file": file,
        "speaker": speaker,
        "text": text.lower() if caller else text,
        "speech_start_ms": start_ms,
        "speech_end_ms": end_ms,
    }


def recognize(pcm: Pcm, sentences: list[str]) -> str:
    """The words that pocketsphinx recognizes in the clip after mu-law; the sentences are its grammar."""
    from pocketsphinx import Decoder

    telephone_audio = audio.to_16k(audio.ulaw_decode(audio.ulaw_encode(pcm)))
    # A decoder adapts to the voice it has heard: a new one for each sentence gives reproducible results.
    decoder = Decoder(samprate=16_000, loglevel="FATAL", lm=None)
    grammar = f"#JSGF V1.0; grammar caller; public <sentence> = {' | '.join(sentences)};"
    decoder.add_jsgf_string("caller", grammar)
    decoder.activate_search("caller")
    decoder.start_utt()
    decoder.process_raw(telephone_audio.astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return str(hypothesis.hypstr) if hypothesis else ""


def main() -> None:
    directory = audio.CLIPS_DIR
    clips = [make_clip(name, text, "caller", directory) for name, text in CALLER.items()]
    clips += [make_clip(name, text, "assistant", directory) for name, text in ASSISTANT.items()]
    sentences = [text.lower() for text in CALLER.values()]
    for clip in clips:
        pcm, _ = audio.read_wav(directory / str(clip["file"]))
        print(f"{clip['name']:18} {len(pcm) * 1000 // RATE:5} ms, longest pause {longest_gap_ms(pcm):3} ms")
        if clip["speaker"] == "caller":
            words = recognize(pcm, sentences)
            if words != clip["text"]:
                raise SystemExit(
                    f"{clip['name']} is recognized as {words!r}; choose other words or another voice"
                )
    (directory / "manifest.json").write_text(json.dumps({"clips": clips}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
