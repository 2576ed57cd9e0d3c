"""WAV files of every kind as a caller's audio, with bounded memory and one-line errors."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sandbox.speech import audio
from sandbox.speech.wav_file import read_wav_file

MAX_SECONDS = 600.0


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int, subtype: str = "PCM_16", **options: str) -> Path:
    soundfile.write(str(path), samples, rate, subtype=subtype, format=options.pop("format", "WAV"), **options)
    return path


def snr_db(pcm: audio.Pcm, expected: np.ndarray) -> float:
    noise = pcm.astype(np.float64) - expected[: len(pcm)] * 32_768
    return float(10 * np.log10(np.mean((expected * 32_768) ** 2) / max(np.mean(noise**2), 1e-9)))


@pytest.mark.parametrize(
    ("subtype", "format", "rate", "channels", "db"),
    [
        ("PCM_U8", "WAV", 8_000, 1, 35), ("PCM_16", "WAV", 8_000, 1, 80), ("PCM_24", "WAV", 44_100, 2, 60),
        ("PCM_32", "WAV", 48_000, 1, 60), ("FLOAT", "WAV", 22_050, 1, 60), ("DOUBLE", "WAV", 96_000, 2, 60),
        ("ULAW", "WAV", 8_000, 1, 30), ("ALAW", "WAV", 8_000, 1, 30), ("ULAW", "WAV", 16_000, 2, 30),
        ("PCM_16", "WAVEX", 48_000, 6, 60), ("PCM_24", "WAVEX", 11_025, 1, 60),
        ("FLOAT", "WAVEX", 44_101, 3, 60),
        ("PCM_16", "RF64", 8_000, 1, 80), ("PCM_16", "W64", 16_000, 1, 60),
        ("IMA_ADPCM", "WAV", 22_050, 1, 20),
        ("PCM_16", "WAV", 192_000, 1, 60), ("PCM_16", "WAV", 4_000, 1, 60), ("PCM_16", "WAV", 7_919, 1, 60),
    ],
)  # fmt: skip
def test_it_reads_every_encoding_rate_and_channel_count(
    tmp_path: Path, subtype: str, format: str, rate: int, channels: int, db: float
) -> None:
    seconds = 9.3  # more than two pieces
    samples = np.repeat(tone(seconds, rate)[:, None], channels, axis=1)
    pcm = read_wav_file(write(tmp_path / "a.wav", samples, rate, subtype, format=format), MAX_SECONDS)
    expected = tone(seconds + 0.1, 8_000)
    assert abs(len(pcm) - seconds * 8_000) <= (300 if "ADPCM" in subtype else 1)
    middle = slice(800, len(expected) - 1600)  # the ends ring
    assert snr_db(pcm[middle], expected[middle]) > db


def test_it_reads_big_endian_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1, 8_000), 8_000, endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX" and len(read_wav_file(path, MAX_SECONDS)) == 8_000
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="is truncated"):
        read_wav_file(path, MAX_SECONDS)


def test_channels_are_mixed_and_impossible_samples_are_limited(tmp_path: Path) -> None:
    left_and_right = np.array([[0.5, 0.25]] * 8_000)
    pcm = read_wav_file(write(tmp_path / "a.wav", left_and_right, 8_000), MAX_SECONDS)
    assert set(pcm) == {12_288}
    wild = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0, 0.0])
    pcm = read_wav_file(write(tmp_path / "b.wav", wild, 8_000, "FLOAT"), MAX_SECONDS)
    assert list(pcm) == [0, 32_767, -32_768, 32_767, -32_768, 0]


def pcm_header(data_bytes: int, rate: int = 8_000, extra: bytes = b"") -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + extra + b"data" + struct.pack("<I", data_bytes)
    return b"RIFF" + struct.pack("<I", (len(body) + data_bytes) & 0xFFFFFFFF) + body


def other_format(format: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(0.1, 8_000), 8_000, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (pcm_header(0)[:4] + struct.pack("<I", 48) + pcm_header(0)[8:] + b"LIST\x04\0\0\0abcd", "is empty"),
        (pcm_header(0), "is empty"),
        (b"hello, this is text", "is not a WAV file"),
        (other_format("FLAC", "PCM_16"), "is not a WAV file"),
        (other_format("AIFF", "PCM_16"), "is not a WAV file"),
        (b"RIFF\x04\x00\x00\x00AVI ", "is not a WAV file"),
        (b"RIF", "is not a WAV file"),
        (b"RIFF\x24\x00", "is truncated"),
        (pcm_header(16_000)[:30], "is truncated"),
        (pcm_header(16_000), "is truncated: it has 0 of 16000 bytes"),
        (pcm_header(16_000) + bytes(15_000), "is truncated: it has 15000 of 16000 bytes"),
        (pcm_header(16_000).replace(b"\1\0\1\0", b"\x77\x77\1\0", 1) + bytes(16_000), "cannot be read"),
        (pcm_header(20_000, 4_000_000) + bytes(20_000), "sample rate of 4000000 Hz; the maximum"),
        (pcm_header(1_202 * 8_000 * 2), "is truncated"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_that_names_the_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "some.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="some.wav") as error:
        read_wav_file(path, MAX_SECONDS)
    assert says in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        read_wav_file(tmp_path, MAX_SECONDS)


@pytest.mark.parametrize("size", [0, 0x7FFFFFD8, 0x80000000, 0xFFFFFFFF])
def test_a_file_that_was_streamed_has_no_size_in_its_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "piped.wav"
    header = pcm_header(size)
    path.write_bytes(b"RIFF\0\0\0\0" + header[8:] + audio.line_noise(1, 8_000).astype("<i2").tobytes())
    assert len(read_wav_file(path, MAX_SECONDS)) == 8_000


def test_other_chunks_before_the_audio_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "list.wav"
    noise = audio.line_noise(1, 8_000)
    path.write_bytes(pcm_header(16_000, extra=b"LIST\x03\x00\x00\x00abc\x00") + noise.astype("<i2").tobytes())
    assert np.array_equal(read_wav_file(path, MAX_SECONDS), noise)


def test_a_file_of_an_hour_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    data_bytes = 3600 * 48_000 * 2
    with path.open("wb") as file:
        file.write(pcm_header(data_bytes, 48_000))
        file.truncate(44 + data_bytes)  # sparse: takes no space
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="is 60 minutes long; the maximum is 10 minutes"):
            read_wav_file(path, MAX_SECONDS)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 120):
        path = tmp_path / f"{seconds}.wav"
        data_bytes = seconds * 48_000 * 2
        with path.open("wb") as file:
            file.write(pcm_header(data_bytes, 48_000))
            file.truncate(44 + data_bytes)
        tracemalloc.start()
        try:
            assert len(read_wav_file(path, MAX_SECONDS)) == seconds * 8_000
            peaks.append(tracemalloc.get_traced_memory()[1] - seconds * 8_000 * 4)
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 60e6, peaks
