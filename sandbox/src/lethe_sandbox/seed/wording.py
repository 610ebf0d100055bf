"""What people write: prompts, negative prompts and titles."""

from random import Random
from typing import Final

from lethe_sandbox.seed.cases import Prompt

_WORDS: Final = (
    "portrait",
    "harbour",
    "lantern",
    "velvet",
    "meadow",
    "copper",
    "skyline",
    "winter",
    "orchid",
    "marble",
    "thunder",
    "paper",
    "engine",
    "garden",
    "silver",
    "mountain",
    "river",
    "studio",
    "neon",
    "forest",
    "castle",
    "desert",
    "whale",
    "mirror",
    "clock",
    "violin",
    "rooftop",
    "고양이",
    "바다",
    "노을",
    "골목길",
    "한복",
    "벚꽃",
    "자전거",
    "겨울밤",
    "등대",
    "호수",
    "café",
    "naïve",
    "piñata",
)
_FLOURISHES: Final = (
    "",
    " in the style of my late grandmother",
    ' with the words "happy birthday, Minji"',
    "\nsecond line\tafter a tab, a back\\slash and 100% more",
    " — 4k, f/1.8",
)
_NEGATIVES: Final = (
    None,
    None,
    "",
    "blurry, extra fingers",
    "watermark, my ex, {braces}, low quality",
)
_LONG_BYTES: Final = 10 * 1024
_NEEDLE_CHARS: Final = 40
_SHORTEST_NEEDLE: Final = 24


class Wording:
    """Draws texts; they begin with words only, so that a piece is found in almost any encoding."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def prompt(self, kind: Prompt) -> str | None:
        """Draw a prompt: none, empty, a sentence, or 10 KB of them."""
        if kind == "none":
            return None
        if kind == "empty":
            return ""
        text = self._words(self._rng.randint(7, 14)) + self._rng.choice(_FLOURISHES)
        if kind == "short":
            return text
        parts, size = [text], len(text.encode())
        while size < _LONG_BYTES:
            part = ", " + self._words(12)
            parts.append(part)
            size += len(part.encode())
        return "".join(parts)

    def negative(self, kind: Prompt) -> str | None:
        """Draw a negative prompt; most requests have none."""
        return None if kind == "none" else self._rng.choice(_NEGATIVES)

    def title(self) -> str:
        """Draw the title of a document."""
        return f"{self._words(5)} {self._rng.randint(1, 99)}.pdf"

    def _words(self, count: int) -> str:
        return " ".join(self._rng.choices(_WORDS, k=count))


def needle(text: str | None) -> list[str]:
    """Cut the piece by which a text can be found again; nothing if it is too short to tell."""
    if text is None or len(text) < _SHORTEST_NEEDLE:
        return []
    return [text[:_NEEDLE_CHARS]]
