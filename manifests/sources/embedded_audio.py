"""Audio that lies in a table itself, or at an address, written to files beside the manifest."""

from coat.manifests import addresses, storage
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.sources.column_names import EmbeddedAudio
from coat.manifests.sources.records import AUDIO_SUFFIXES

# How the first bytes of a file name its format, for embedded audio that has lost its name.
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff", b"\xff\xfb": ".mp3"}


class AudioFolder:
    """Where embedded audio goes: `<manifest>_audio/` beside the manifest, under names that are safe."""

    def __init__(self, manifest: str) -> None:
        self.folder = storage.absolute(manifest.removesuffix(".gz").rsplit(".", 1)[0] + "_audio")
        self.names: set[str] = set()
        self.last_copy = ("", "")  # address, and path of its file

    def save(self, audio: EmbeddedAudio, name: str) -> str:
        """Write the bytes; the path of the file."""
        original = audio.path.replace("\\", "/").rsplit("/", 1)[-1]
        stem, dot, suffix = original.rpartition(".")
        suffix = f".{suffix.lower()}" if dot and f".{suffix.lower()}" in AUDIO_SUFFIXES else guess_suffix(audio.data)
        key = Utterance(id=stem or original or name, audio="", audio_filepath="").key
        unique, n = key, 1
        while unique.lower() in self.names:  # as file systems that ignore case see it
            n += 1
            unique = f"{key}-{n}"
        self.names.add(unique.lower())
        path = storage.join(self.folder, unique + suffix)
        storage.write_bytes(path, audio.data)
        return path

    def copy(self, address: str, name: str, once: str = "") -> str:
        """What lies at an address, in a file of its own: the path of that. `once`: the name that it had.

        ValueError where it cannot be read.
        """
        place, channel = addresses.split_channel(address)
        if not addresses.is_address(place):  # a file, of which it is a channel
            return address
        if place != self.last_copy[0]:  # rows that share a recording follow each other
            found = addresses.parse(place)
            try:
                opened = found.open()
            except (OSError, EOFError, ValueError) as e:
                raise ValueError(f"{place}: {e}") from e
            assert not isinstance(opened, str)
            audio = EmbeddedAudio(opened.getvalue(), once or getattr(found, "member", ""))
            self.last_copy = place, self.save(audio, name)
        return self.last_copy[1] + (f"#channel={channel}" if channel is not None else "")


def guess_suffix(data: bytes) -> str:
    return next((suffix for magic, suffix in MAGIC.items() if data.startswith(magic)), ".audio")
