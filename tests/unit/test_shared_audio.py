"""One reading of a sound, at a client and in a backend: what real encoders write comes back as it was."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sheaf.backends._shared.audio import SoundLimits, encoded, read, resample
from sheaf_client._media import AudioFile as File
from sheaf_client.errors import InvalidRequestError
from tests.contract.files import wav, whole
from tests.unit.sounds import tones, written

PATH = "/audio_b64"
RATE = 16_000
NOISE = np.random.default_rng(1).uniform(-1, 1, (6, 3000))
RECORDED = {name: data for name, kind, data, _ in whole() if kind == "audio"}


def samples_of(data: bytes) -> np.ndarray:
    """All channels, which is what the client's own reading gives."""
    found, rate = read(File(data), PATH, mono=False)
    assert found.dtype == np.float32
    alone, same = File(data).to_numpy()
    assert rate == same
    assert np.array_equal(alone, found[0] if len(found) == 1 else found.T)
    assert (np.abs(found) <= 1).all()
    return found


def decoded(data: bytes) -> np.ndarray:
    """What FFmpeg makes of the file, of shape (channels, frames), in its own type."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    channels = len(frames[0].layout.channels)
    return np.concatenate([f.to_ndarray().reshape(-1, channels).T for f in frames], axis=1)


def fault_of(call: Callable[[], Any]) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        call()
    (fault,) = refused.value.errors
    return fault.code, fault.path, fault.message


# ---- WAV


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("codec", "sample_format", "bits"),
    [
        ("pcm_u8", "u8", 8),
        ("pcm_s16le", "s16", 16),
        ("pcm_s24le", "s32", 24),
        ("pcm_s32le", "s32", 32),
        ("pcm_f32le", "flt", 0),
        ("pcm_f64le", "dbl", 0),
    ],
)
def test_wav_of_every_width(codec: str, sample_format: str, bits: int, channels: int) -> None:
    wanted = NOISE[:channels]
    if bits == 8:
        given = (np.rint(wanted * 127) + 128).astype(np.uint8)
        truth = (given.astype(float) - 128) / 128
    elif bits:
        full = 2.0 ** (15 if bits == 16 else 31)
        given = np.rint(wanted * (full - 1)).astype(f"i{2 if bits == 16 else 4}")
        truth = given / full
    else:
        given = wanted.astype("f4" if sample_format == "flt" else "f8")
        truth = given
    data = written(given, RATE, "wav", codec, sample_format)
    assert data[20:22] == (b"\xfe\xff" if channels == 6 or bits in (24, 32) else data[20:22])
    found = samples_of(data)
    assert found.shape == wanted.shape
    # Of 24 bits the encoder drops the lowest eight.
    assert np.abs(found - truth).max() <= (2.0**-23 if bits == 24 else 2.0**-24)
    ours = decoded(data)
    scale = {"uint8": 128.0, "int16": 2.0**15, "int32": 2.0**31}.get(ours.dtype.name, 1.0)
    assert np.abs(found - (ours - (128.0 if bits == 8 else 0.0)) / scale).max() <= 2.0**-24


def test_floats_beyond_full_scale_are_clipped_and_no_numbers_are_refused() -> None:
    loud = np.array([[0.25, 1.5, -7.0]], np.float32)
    assert samples_of(written(loud, RATE, "wav", "pcm_f32le", "flt")).tolist() == [[0.25, 1.0, -1.0]]
    for odd in (np.nan, np.inf):
        data = written(np.array([[0.0, odd]], np.float32), RATE, "wav", "pcm_f32le", "flt")
        assert fault_of(lambda data=data: read(File(data), PATH))[:2] == ("not_finite", PATH)


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw"])
def test_wav_of_telephones(codec: str) -> None:
    """Both keep a share of each sample, about 1 in 32, and not its scale."""
    levels = np.rint(NOISE[:2] * 32767).astype(np.int16)
    found = samples_of(written(levels, 8000, "wav", codec, "s16"))
    truth = levels / 2.0**15
    assert (np.abs(found - truth) <= np.abs(truth) / 28 + 0.001).all()


def test_a_length_that_was_not_known_and_other_writers_behind() -> None:
    assert samples_of(RECORDED["piped.wav"]).shape == samples_of(RECORDED["pcm.wav"]).shape == (1, 320)
    data = wav(RATE, 100, channels=2)
    assert samples_of(data + b"LIST\4\0\0\0junk").shape == (2, 100)


# ---- other formats


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("form", "codec", "sample_format", "bits"),
    [
        ("flac", "flac", "s16", 16),
        ("flac", "flac", "s32", 24),
        ("ogg", "flac", "s16", 16),
        ("ipod", "alac", "s16p", 16),
    ],
)
def test_what_loses_nothing_comes_back_to_the_bit(
    form: str, codec: str, sample_format: str, bits: int, channels: int
) -> None:
    levels = np.rint(NOISE[:channels] * (2 ** (bits - 1) - 1)).astype(np.int64)
    given = levels.astype(np.int16) if bits == 16 else (levels << 8).astype(np.int32)
    data = written(given, RATE, form, codec, sample_format)
    assert np.array_equal(samples_of(data), (levels / 2.0 ** (bits - 1)).astype(np.float32))


@pytest.mark.parametrize(
    ("form", "codec", "sample_format", "options"),
    [
        ("mp3", "libmp3lame", "fltp", {}),
        ("ipod", "aac", "fltp", {}),
        ("ogg", "libopus", "flt", {}),
        ("webm", "libopus", "flt", {}),
        ("ogg", "vorbis", "fltp", {"strict": "experimental"}),
    ],
)
def test_what_loses_a_little_keeps_scale_place_and_channels(
    form: str, codec: str, sample_format: str, options: dict[str, str]
) -> None:
    wanted = tones(48_000, 1.0, 1000, 1000)
    found = samples_of(written(wanted, 48_000, form, codec, sample_format, **options))
    assert len(found) == 2
    assert 0 <= found.shape[1] - wanted.shape[1] <= 2048
    error = (found[:, : wanted.shape[1]] - wanted)[:, 4800:-4800]
    # A shift of one sample is 13 % of it, channels swapped a half and more; LAME makes all softer by 3 %.
    assert np.sqrt((error**2).mean(axis=1) / (wanted**2).mean(axis=1)).max() < 0.06


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_recorded_container_is_decoded(name: str) -> None:
    found = samples_of(RECORDED[name])
    assert 0.3 < np.abs(found).max() < 0.45
    assert found.shape[0] == 1


def test_tags_behind_an_mp3_are_no_sound() -> None:
    data = written(tones(44_100, 0.5, 440), 44_100, "mp3", "libmp3lame", "fltp")
    tagged = data + b"APETAGEX" + bytes(24) + b"TAG" + bytes(125)
    assert samples_of(tagged).shape == samples_of(data).shape


# ---- mixing and resampling


def test_channels_are_averaged() -> None:
    sound = tones(RATE, 0.2, 440, 440)
    data = written(sound, RATE, "wav", "pcm_f32le", "flt")
    found, rate = read(File(data), PATH)
    assert (found.shape, rate) == ((3200,), RATE)
    assert np.abs(found - sound.mean(axis=0)).max() < 1e-6


def test_channels_that_change_in_a_stream_can_be_averaged_and_not_kept() -> None:
    """Two recordings, one behind the other, as people join MP3 files."""
    parts = [tones(44_100, 0.5, 1000, 1000), tones(44_100, 0.5, 1000)]
    joined = File(b"".join(written(part, 44_100, "mp3", "libmp3lame", "fltp") for part in parts))
    found, _ = read(joined, PATH, rate=16_000)
    assert found.size == pytest.approx(16_000, abs=1600)
    assert np.abs(found[2000:6000]).max() == pytest.approx(0.375, abs=0.02)
    assert np.abs(found[-5000:-1000]).max() == pytest.approx(0.5, abs=0.02)
    code, path, said = fault_of(lambda: read(joined, PATH, mono=False))
    assert (code, path, said) == ("bad_format", PATH, "The sound changes from 2 channels to 1.")


@pytest.mark.parametrize("to", [8000, 16_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("rate", [11_025, 44_100, 48_000])
def test_a_tone_is_the_same_tone_at_another_rate(rate: int, to: int) -> None:
    seconds = 2.5  # more than one block
    data = written(tones(rate, seconds, 1000, 1000), rate, "wav", "pcm_f32le", "flt")
    found, same = read(File(data), PATH, rate=to, mono=False)
    assert same == to
    assert found.shape == (2, pytest.approx(round(seconds * rate) * to / rate, abs=1))
    wanted = tones(to, found.shape[1] / to, 1000, 1000)
    # The first and the last 50 ms hold the filter's own beginning and end.
    assert np.abs(found - wanted)[:, to // 20 : -to // 20].max() < 1e-4


@pytest.mark.parametrize("to", [8000, 16_000, 22_050, 24_000])
def test_what_no_longer_fits_vanishes_instead_of_folding_back(to: int) -> None:
    """Linear interpolation leaves a third or more of it, at another frequency."""
    for hertz in (to * 0.56, to * 0.8):
        data = written(tones(48_000, 1.0, hertz), 48_000, "wav", "pcm_f32le", "flt")
        found, _ = read(File(data), PATH, rate=to)
        assert np.abs(found[400:-400]).max() < 1e-4


def test_blocks_leave_no_seams() -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (2, 300_000)).astype(np.float32)
    wanted = soxr.resample(noise.T, 44_100, 16_000).T
    assert np.abs(resample(noise, 44_100, 16_000) - wanted).max() < 1e-5
    assert np.abs(resample(noise[0], 44_100, 16_000) - wanted[0]).max() < 1e-5
    assert resample(noise, 16_000, 16_000) is noise


# ---- hostile files


def test_a_sound_is_refused_where_it_passes_a_limit_and_takes_no_memory_beyond() -> None:
    """Silence is small: an hour of it would be a few kilobytes."""
    silence = written(np.zeros((2, 60 * 48_000), np.int16), 48_000, "flac", "flac", "s16")
    assert len(silence) < 30_000
    tracemalloc.start()
    try:
        code, path, said = fault_of(lambda: read(File(silence), PATH, limits=SoundLimits(seconds=1)))
        assert (code, path) == ("too_large_media", PATH)
        assert "more than 1 s" in said
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    # A header that says that there is nothing.
    told = struct.unpack_from(">Q", silence, 18)[0]
    lying = silence[:18] + struct.pack(">Q", told >> 36 << 36 | 1) + silence[26:]
    assert fault_of(lambda: read(File(lying), PATH, limits=SoundLimits(seconds=1)))[0] == "too_large_media"
    limits = SoundLimits(samples=48_000)
    assert fault_of(lambda: read(File(silence), PATH, limits=limits))[0] == "too_large_media"
    assert read(File(silence), PATH, rate=8000)[0].shape == (480_000,)


def test_rates_and_channels_are_bounded() -> None:
    fast = written(np.zeros((1, 99), np.int16), 96_000, "wav", "pcm_s16le", "s16")
    assert fault_of(lambda: read(File(fast), PATH, limits=SoundLimits(rate=48_000)))[0] == "out_of_range"
    wide = File(written(np.zeros((6, 99), np.int16), RATE, "flac", "flac", "s16"))
    code, _, said = fault_of(lambda: read(wide, PATH, limits=SoundLimits(channels=2)))
    assert code == "out_of_range"
    assert said == "The sound must have 1 to 2 channels; it has 6."


def test_a_flac_that_says_more_than_it_has_is_cut_off() -> None:
    data = written(np.rint(NOISE[:1] * 9999).astype(np.int16), RATE, "flac", "flac", "s16")
    told = struct.unpack_from(">Q", data, 18)[0]
    more = data[:18] + struct.pack(">Q", told + 500) + data[26:]
    assert fault_of(lambda: read(File(more), PATH)) == (
        *("bad_format", PATH),
        "The FLAC file is cut off 500 samples before its end.",
    )


def test_what_is_no_sound_and_containers_that_are_not_looked_for_are_refused() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"
    assert fault_of(lambda: read(File(playlist), "/audios_b64/2"))[:2] == ("bad_format", "/audios_b64/2")
    other = written(np.zeros((1, 999), np.int16), RATE, "nut", "pcm_s16le", "s16")
    assert decoded(other).shape == (1, 999)
    code, path, said = fault_of(lambda: read(File(other), PATH))
    assert (code, path) == ("bad_format", PATH)
    assert said.startswith("The sound cannot be read: ")


def tried(data: bytes) -> Any:
    """The samples, or the code and the place of the fault that they were refused for."""
    try:
        return read(File(data), PATH, mono=False, limits=SoundLimits(seconds=60, samples=2**22))[0]
    except InvalidRequestError as error:
        (fault,) = error.errors
        return fault.code, fault.path


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_file_that_is_cut_off_gives_its_beginning_or_a_refusal(name: str) -> None:
    data = RECORDED[name]
    length = read(File(data), PATH)[0].size
    for cut in range(1, len(data), 7 + len(data) // 50):
        found = tried(data[:cut])
        assert found == ("bad_format", PATH) if isinstance(found, tuple) else found.shape[1] <= length + 4096


CHANGES = st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=6)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(RECORDED.items())), CHANGES)
def test_bytes_that_were_changed_end_in_samples_or_a_refusal(
    entry: tuple[str, bytes], changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(entry[1])
    for place, junk in changes:
        data[place : place + len(junk)] = junk
    found = tried(bytes(data))
    if isinstance(found, tuple):
        assert found[1] == PATH
    else:
        assert np.isfinite(found).all()


# ---- writing


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_what_is_written_is_read_again_to_the_bit(form: Any) -> None:
    levels = (np.rint(NOISE[:2] * 32767) / 2.0**15).astype(np.float32)
    assert np.array_equal(samples_of(encoded(levels, RATE, form).bytes), levels)
    assert np.array_equal(samples_of(encoded(levels[0], RATE, form).bytes), levels[:1])
    assert samples_of(encoded(np.array([1.0, -3.0]), RATE, form).bytes).tolist() == [[32767 / 32768, -1.0]]
    with pytest.raises(ValueError, match="no numbers"):
        encoded(np.array([np.nan]), RATE, form)


def test_without_a_decoder_plain_wav_is_read_and_the_extra_for_the_rest_is_named() -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from sheaf_client._media import AudioFile\n"
        "from tests.contract.files import wav, whole\n"
        "print(AudioFile(wav()).to_numpy()[0].shape)\n"
        "flac = next(data for name, _, data, _ in whole() if name == 'flac.flac')\n"
        "{call}"
    )
    for call, said in (
        ("AudioFile(flac).to_numpy()", "decoding sound other than plain WAV needs av, of the extra media of"),
        (
            "from sheaf.backends._shared.audio import read; read(AudioFile(flac), '/a')",
            "reading this sound needs av, of the extra media: pip install",
        ),
    ):
        run = [sys.executable, "-c", code.format(call=call)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "(160,)"
        assert done.stderr.strip().splitlines()[-1].startswith(f"ModuleNotFoundError: {said}")
