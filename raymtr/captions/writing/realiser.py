"""Realiser: a grammar that turns tags into one to three English sentences faithful to them.

Each tag has a role (`captions.writing.tag_roles`). A plan puts the roles into sentences, and
`grammar.toml` has the wordings: an opening that names the music, a sentence on sounds, one on mood
and use. The choices of a caption are its structure; its name lists them, and there are many
thousands. A caption depends on its tags and its seed alone, contains every tag, and says nothing
else. It needs no model; a model may rank the captions of several seeds. Limitation: no world
knowledge, so the better noun of two unknown words cannot be determined.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from raymtr.captions.english import article, lexicon
from raymtr.captions.writing.tag_roles import Form, form_of, head_of
from raymtr.captions.writing.templates import clean_tags

MOST_MOODS = 2  # before the noun
MOST_SOUNDS = 5  # in one list; further ones go into a second list
MOST_PREDICATES = 4  # in one sentence
SONG_HEADS = ("song", "track", "piece", "tune", "number")
PIECE_HEADS = ("piece", "track", "tune", "composition", "number")
SHORT_QUALITY = re.compile(r"\w+ (?:quality|fidelity)", re.IGNORECASE)


@dataclass(frozen=True)
class Realised:
    """A caption and its structure: the choices, one after another."""

    text: str
    structure: str


@dataclass(frozen=True)
class Part:
    """The content of a slot: words, and whether they are plural."""

    text: str
    plural: bool = False


@lru_cache(maxsize=1)
def grammar() -> dict[str, dict[str, Any]]:
    """The wordings, `train` and `held_out`."""
    text = resources.files("raymtr.captions.writing").joinpath("grammar.toml").read_text("utf-8")
    return tomllib.loads(text)


def realise(tags: Sequence[str] | None, seed: int, *, held_out: bool = False) -> Realised | None:
    """A caption that contains `tags` (the first 20); None where there are none.

    `held_out` uses the wordings reserved for evaluation, which no training caption has.
    """
    cleaned = clean_tags(tags or ())
    if not cleaned:
        return None
    own = hashlib.blake2b("\0".join(cleaned).encode(), digest_size=8, salt=b"realise").digest()
    rng = np.random.default_rng([seed, int.from_bytes(own, "big")])
    return _Caption(cleaned, grammar()["held_out" if held_out else "train"], rng).write()


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, and c`."""
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


class _Caption:
    """One caption in progress: the groups yet to be used, and the choices taken."""

    def __init__(self, tags: list[str], wordings: dict[str, Any], rng: np.random.Generator) -> None:
        self._wordings, self._choices = wordings, []  # type: ignore[var-annotated]
        self._numbers = iter(rng.random(64).tolist())
        self._groups: dict[str, list[Form]] = {}
        order = tags if self._chance(0.5) else [tags[i] for i in rng.permutation(len(tags))]
        for tag in order:
            form = form_of(tag)
            self._groups.setdefault(form.role, []).append(form)
        self._slots: dict[str, Part] = {}
        self._plain = False  # whether the music is named by a bare noun

    def write(self) -> Realised:
        """The sentences, in order."""
        self._fill()
        sentences = []
        if self._plain and "recording" not in self._slots and self._is_heard():
            self._forget("what")
            self._slots["it"] = self._slots["this"]
        else:
            opening, heard = self._opening()
            sentences.append(opening)
            if heard:
                self._forget("it")
        sentences += self._heard()
        sentences += self._traits(3 - len(sentences))
        if len(sentences) == 3 and self._chance(0.25):
            sentences[1:] = sentences[:0:-1]
        text = " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
        return Realised(text, ".".join(self._choices))

    def _chance(self, share: float) -> bool:
        return next(self._numbers, 0.5) < share

    def _pick(self, name: str, wordings: Sequence[str]) -> str:
        """One of `wordings`, recorded as a choice."""
        at = int(next(self._numbers, 0.5) * len(wordings))
        self._choices.append(f"{name}{at}")
        return wordings[at]

    def _take(self, role: str) -> list[Form]:
        return self._groups.pop(role, [])

    def _fill(self) -> None:
        """Put every group into its slot."""
        slots = self._slots
        self._what()
        self._recording()
        voice, sounds = self._take("voice"), self._take("sound")
        if len(sounds) > MOST_SOUNDS:
            cut = (len(sounds) + 1) // 2
            sounds, rest = sounds[:cut], sounds[cut:]
            slots["more"] = _several(rest)
        if sounds:
            slots["sounds"] = _several(sounds)
        if voice:
            slots["voice"] = _several(voice)
        feelings = [form.bare for form in self._take("feeling")]
        airs = [form.text for form in self._take("air")]
        if feelings:
            airs.append(f"a sense of {listed(feelings)}")
        tempo = [_pace(form) for form in self._take("tempo")]
        simple = {
            "airs": airs,
            "tempo": tempo,
            "key": [form.text for form in self._take("key")],
            "absence": [form.bare for form in self._take("absence")],
            "tapes": [form.text for form in self._take("recording")],
            "quality": [form.bare for form in self._take("quality")],
            "moods": [form.bare for form in self._take("mood")],
            "styles": [_style(form.bare) for form in self._take("genre")],
            "as": [f.text for role in ("as", "piece") for f in self._take(role)],
            "uses": [form.text for form in self._take("use")],
            "places": [form.bare for form in self._take("place")],
            "language": [form.text for form in self._take("language")],
            "other": [form.bare for form in self._take("other")],
        }
        slots.update({name: Part(listed(words)) for name, words in simple.items() if words})

    def _what(self) -> None:
        """The noun phrase for the music: moods, tempo, kind, origin and genre before a noun."""
        groups = self._groups
        adjectives = [", ".join(form.bare for form in self._leading_moods())]
        tempo = [form for form in groups.get("tempo", []) if is_adjective(form)]
        if tempo and self._chance(0.6):
            adjectives.append(tempo[0].bare)
            groups["tempo"] = [form for form in groups["tempo"] if form is not tempo[0]]
        adjectives += [form.bare for role in ("kind", "origin") for form in self._take(role)]
        head = self._pick("h", SONG_HEADS if "voice" in groups else PIECE_HEADS)
        genres = groups.get("genre", [])
        used = [form for form in genres if not form.bare.endswith(("music", "genre"))][:2]
        if genres and genres[0].bare.endswith("music"):
            used = genres[:1]
        plural, bare = False, bool(used) and used[0].bare.endswith("music")
        for form in groups.get("piece", []):
            short = " " not in form.bare or not used
            short = short and form.bare.rpartition(" ")[2] not in " ".join(adjectives)
            if short and not re.match(r"\d|two |three |various ", form.bare):
                head, plural, bare = form.bare, form.plural, False
                groups["piece"] = [other for other in groups["piece"] if other is not form]
                break
        groups["genre"] = [form for form in genres if form not in used]
        words = [*adjectives, listed([form.bare for form in used]), "" if bare else head]
        words = [word for word in words if word]
        phrase = " ".join(words)
        if not (plural or bare):
            phrase = f"{article(phrase)} {phrase}"
        since = [form.bare for form in self._take("era")]
        if since:
            phrase += f" from {listed(since)}"
        self._plain = phrase.endswith(head) and len(words) == 1 and head in PIECE_HEADS + SONG_HEADS
        self._slots["what"] = Part(phrase, plural)
        self._slots["it"] = Part("it")
        self._slots["this"] = Part(f"this {head}")

    def _leading_moods(self) -> list[Form]:
        """The adjectives before the noun; the others are left for a predicate."""
        moods = self._groups.get("mood", [])
        able = [form for form in moods if " " not in form.bare]
        count = min(MOST_MOODS, len(able))
        if len(moods) > MOST_MOODS or self._chance(0.4):
            count = min(count, 0 if self._chance(0.5) else 1)
        self._groups["mood"] = [form for form in moods if form not in able[:count]]
        return able[:count]

    def _recording(self) -> None:
        """The recording: `a noisy, low quality live recording`."""
        groups = self._groups
        states, tapes = [form.bare for form in self._take("state")], groups.get("recording", [])
        short = [f for f in groups.get("quality", []) if SHORT_QUALITY.fullmatch(f.bare)][:1]
        if not (states or short or tapes):
            return
        groups["quality"] = [form for form in groups.get("quality", []) if form not in short]
        tape = next((form for form in tapes if form.text != form.bare), tapes[0] if tapes else None)
        groups["recording"] = [form for form in tapes if form is not tape]
        head = re.sub(r"^(the|an?) ", "", tape.bare, flags=re.IGNORECASE) if tape else "recording"
        before = ", ".join([*states, *(form.bare for form in short)])
        phrase = f"{before} {head}".strip()
        one = tape is None or not tape.plural
        mass = tape is not None and tape.text == tape.bare and head == tape.bare
        shown = head_of(head.casefold()) in lexicon().sets["shown_with"]
        self._slots["of"] = Part("with" if shown else "of")
        indefinite = f"{article(phrase)} {phrase}" if one and not mass else phrase
        self._slots["recording"] = Part(indefinite, not one)
        self._slots["tape"] = Part(f"the {phrase}", not one)

    def _is_heard(self) -> bool:
        return "sounds" in self._slots or "voice" in self._slots

    def _forget(self, *names: str) -> None:
        for name in names:
            self._slots.pop(name, None)

    def _opening(self) -> tuple[str, bool]:
        """The first sentence, and whether it already mentions the sounds."""
        slots = self._slots
        how = ""
        traits = len(self._waiting())
        tape = self._plain and "recording" in slots
        for name in ("tempo", "key"):
            if name in slots and not tape and (traits > MOST_PREDICATES or self._chance(0.6)):
                how += self._filled(self._pick(name[0], self._wordings[name]))
        slots["how"] = Part(how)
        kind = "open_recording" if "recording" in slots else "open"
        if tape:
            kind = "open_tape"
            self._forget("what")
        heard = "sounds" in slots and "voice" not in slots and "more" not in slots
        heard = heard and (how == "" or len(slots["sounds"].text) < 60)
        heard = heard and (kind == "open_tape" or self._chance(0.6))
        if heard:
            kind += "_sounds"
        sentence = self._filled(self._pick(kind, self._wordings[kind]))
        self._forget("tape", "recording")
        if heard and "absence" in slots and self._chance(0.5):
            sentence += self._filled(self._pick("n", self._wordings["absence"]))
        return sentence, heard

    def _heard(self) -> list[str]:
        """The sentence on voices and instruments, if any."""
        slots = self._slots
        kind = "voice_sounds" if "sounds" in slots else "only_voice"
        if "voice" not in slots:
            kind = "only_sounds"
            if "sounds" not in slots:
                return []
        sentence = self._filled(self._pick(kind, self._wordings[kind]))
        if "more" in slots:
            sentence += self._filled(self._pick("m", self._wordings["more"]))
        if "absence" in slots and "more" not in slots and self._chance(0.6):
            sentence += self._filled(self._pick("n", self._wordings["absence"]))
        return [sentence]

    def _waiting(self) -> list[str]:
        """The filled slots that a predicate can express, in the order they read well."""
        return [name for name in self._wordings["predicates"] if name in self._slots]

    def _traits(self, room: int) -> list[str]:
        """The remaining slots as predicates of one subject, in at most `room` sentences."""
        names = self._waiting()
        if not names:
            return []
        count = min(room, -(-len(names) // MOST_PREDICATES))
        size = -(-len(names) // count)
        sentences = []
        for start in range(0, len(names), size):
            subject = self._pick("s", self._wordings["subject"])
            said = [
                self._filled(self._pick(f"{name}", self._wordings["predicates"][name]))
                for name in names[start : start + size]
            ]
            sentences.append(f"{subject} {listed(said)}")
        return sentences

    def _filled(self, wording: str) -> str:
        """`wording` with its slots filled; the slots are then removed."""
        last = Part("")

        def put(match: re.Match[str]) -> str:
            nonlocal last
            if match[1]:
                part = self._slots[match[1]]
                if match[1] != "it":
                    self._forget(match[1])
                if match[1] not in ("how", "of"):
                    last = part
                return part.text
            part = self._slots[match[2][:-1]] if match[2] else last
            return match[4] if part.plural else match[3]

        return re.sub(r"{(\w+)}|<(\w+:)?([^>|]+)\|([^>]+)>", put, wording)


def is_adjective(form: Form) -> bool:
    """Whether a tempo can stand before a noun unchanged: `uptempo`, `slow`."""
    return re.fullmatch(r"\w*-?\w+", form.bare) is not None and not form.bare[0].isdigit()


def _style(genre: str) -> str:
    return f"the {genre}" if genre.endswith("genre") else genre


def _several(forms: Sequence[Form]) -> Part:
    return Part(listed([form.text for form in forms]), len(forms) > 1 or forms[0].plural)


def _pace(form: Form) -> str:
    """A tempo after `at`: `a slow tempo`, `a slow pace`, `124 bpm`."""
    if re.search(r"(?<![\w-])tempos?$|paces?$|speeds?$|bpm$|\d", form.bare.casefold()):
        return form.text
    noun = "tempo" if form.bare.endswith("paced") else "pace"
    return f"{article(form.bare)} {form.bare} {noun}"
