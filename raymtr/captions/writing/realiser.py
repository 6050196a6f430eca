"""Realiser: a grammar that turns tags into one to three English sentences faithful to them.

Each tag has a role (`captions.writing.tag_roles`) and becomes part of a phrase
(`captions.writing.slots`). `grammar.toml` has the wordings that phrases are put into: an opening
that names the music, a sentence on sounds, one on mood and use. The choices of a caption are its
structure; its name lists them, and there are many thousands. A caption depends on its tags and its
seed alone, and adds nothing. It contains every tag of a list of up to three; of a longer one it
leaves out up to a quarter, first the words of unknown role. It needs no model; a model may rank the
captions of several seeds (`captions.writing.ranking`). Limitation: no world knowledge, so the
better noun of two unknown words cannot be determined.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymtr.captions.english import article
from raymtr.captions.writing.grammar import Part, filled, grammar
from raymtr.captions.writing.slots import Choices, fill_slots
from raymtr.captions.writing.templates import clean_tags

MOST_PREDICATES = 3  # in one sentence
LONG = 60  # letters of a list that should not be next to other additions
MOST_HEARD = 120  # letters of voices and instruments in the first sentence


@dataclass(frozen=True)
class Realised:
    """A caption and its structure: the choices, one after another."""

    text: str
    structure: str


def realise(tags: Sequence[str] | None, seed: int, *, held_out: bool = False) -> Realised | None:
    """A caption of `tags` (the first 20; see above for long lists); None where there are none.

    `held_out` uses the wordings reserved for evaluation, which no training caption has.
    """
    cleaned = clean_tags(tags or ())
    if not cleaned:
        return None
    digest = hashlib.blake2b("\0".join(cleaned).encode(), digest_size=8, salt=b"realise").digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    choices = Choices(rng.random(96).tolist())
    slots = fill_slots(cleaned, choices)
    part = "held_out" if held_out else "train"
    text = _Caption(slots, grammar()[part], choices, asks=held_out).write()
    return Realised(text, ".".join(choices.taken))


class _Caption:
    """One caption in progress: the slots yet to be used."""

    def __init__(
        self, slots: dict[str, Part], wordings: dict[str, Any], choices: Choices, *, asks: bool
    ) -> None:
        """`asks`: the wordings are of one who asks, so that an `i` alone is a capital."""
        self._asks = asks
        self._slots, self._wordings, self._choices = slots, wordings, choices
        self._plain = slots.pop("plain", None) is not None

    def write(self) -> str:
        """The sentences, in order."""
        sentences = []
        lacks = "absence" in self._slots or "lack" in self._slots
        if self._plain and "recording" not in self._slots and self._is_heard():
            del self._slots["what"]
            self._slots["it"] = self._slots["this"]
        else:
            sentences.append(self._opening())
        heard = self._heard()
        if not heard and not lacks and self._choices.chance(0.5):
            sentences[-1] += self._tail()
        sentences += heard
        sentences += self._traits(3 - len(sentences))
        sentences[-1] += self._lacking()
        text = " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
        return re.sub(r"\bi\b(?= [a-z])", "I", text) if self._asks else text

    def _is_heard(self) -> bool:
        return "sounds" in self._slots or "voice" in self._slots

    def _said(self, name: str, wordings: Sequence[str]) -> str:
        """One of `wordings` with its slots filled; the choice is recorded."""
        return filled(self._choices.pick(name, wordings), self._slots)

    def _wording(self, name: str) -> str:
        said: str = self._said(name, self._wordings[name])
        return said

    def _opening(self) -> str:
        """The first sentence: what the music is and, where it fits, what is heard in it."""
        slots, kind = self._slots, "open"
        heard = self._fits()
        slots["how"] = Part(self._how(heard is not None))
        if "recording" in slots and self._plain:
            slots["np"] = slots["recording"]
        elif "recording" in slots and self._choices.chance(0.4):
            kind = "open_tape"
        elif heard == "with_sounds" and self._choices.chance(0.35):
            kind, heard = "open_sounds", None
        if "np" not in slots and kind != "open_tape":
            taped = "{recording} {of} " if "recording" in slots else ""
            slots["np"] = Part(filled(taped + "{what}{how}", dict(slots)), self._is_plural())
        plural = kind == "open" and slots["np"].plural  # no "this clip is demos"
        opening = filled("{np}", slots) if plural else self._wording(kind)
        sentence = self._with(heard, opening)
        for name in ("what", "how", "of", "np", "tape", "recording"):
            slots.pop(name, None)
        if not self._is_heard():
            sentence += self._lacking()
            self._slots["it"] = self._slots["the"]
        return sentence

    def _is_plural(self) -> bool:
        return self._slots["recording" if "recording" in self._slots else "what"].plural

    def _fits(self) -> str | None:
        """The wordings for what is heard, where the first sentence has room for it."""
        slots = self._slots
        parts = [slots[name].text for name in ("voice", "sounds") if name in slots]
        if not parts or "more" in slots or sum(map(len, parts)) > MOST_HEARD:
            return None
        if not self._choices.chance(0.65):
            return None
        if len(parts) == 2:
            return "with_both"
        return "with_sounds" if "sounds" in slots else "with_voice"

    def _with(self, heard: str | None, sentence: str) -> str:
        """`sentence` with what is heard; a comma separates it from other additions."""
        if heard is None:
            return sentence
        addition = self._wording(heard)
        simple = addition.startswith((",", ":", " with ", " that ", " where "))
        return f"{sentence}{'' if simple or not self._slots['how'].text else ','}{addition}"

    def _how(self, heard: bool) -> str:
        """Tempo, key, atmosphere and use after the noun, at most two of them."""
        slots, how = self._slots, ""
        many = len(self._waiting()) > MOST_PREDICATES
        room = 1 if heard else 2
        for name in ("tempo", "key", "airs", "uses"):
            late = name in ("airs", "uses")
            if late and (heard or how):
                continue
            fits = name in slots and room and len(slots[name].text) < LONG
            if fits and (many or self._choices.chance(0.5)):
                how, room = how + self._wording(name), room - 1
        return how

    def _tail(self) -> str:
        """Moods at the end of a sentence: `..., calm throughout`."""
        moods = self._slots.get("moods")
        return self._wording("tail") if self._are_short(moods) else ""

    def _heard(self) -> list[str]:
        """The sentence on voices and instruments, if any."""
        slots = self._slots
        if not self._is_heard():
            return []
        kind = "voice_sounds" if "sounds" in slots else "only_voice"
        if "voice" not in slots:
            kind = "only_sounds"
        wording = self._choices.pick(kind, self._wordings[kind])
        front = self._front() if wording.startswith("{it}") else ""
        sentence = front + filled(wording, slots)
        if "more" in slots:
            return [sentence + self._wording("more")]
        return [sentence + self._lacking()]

    def _lacking(self) -> str:
        """What the music lacks, after a sentence on what it has."""
        phrase = ""
        for name in ("absence", "lack"):
            if name in self._slots:
                phrase += self._wording(name)
        return phrase

    def _front(self) -> str:
        """Some moods before a subject: `calm and gentle, it ...`."""
        moods = self._slots.get("moods")
        if self._are_short(moods) and self._choices.chance(0.7):
            return self._wording("front")
        return ""

    def _are_short(self, moods: Part | None) -> bool:
        """Whether moods can stand without a verb: adjectives of one word, and not many."""
        if moods is None or len(moods.text) > LONG:
            return False
        return all(" " not in mood for mood in re.split(r",? and |, ", moods.text))

    def _waiting(self) -> list[str]:
        """The filled slots that a predicate can express, in the order they read well."""
        return [name for name in self._wordings["predicates"] if name in self._slots]

    def _traits(self, room: int) -> list[str]:
        """The remaining slots as predicates of one subject, in at most `room` sentences."""
        sentences: list[str] = []
        while names := self._waiting():
            left = max(room - len(sentences), 1)
            size = len(names) if left == 1 else -(-len(names) // left)
            size = max(size, min(MOST_PREDICATES, len(names)))
            front = self._front() if len(names) > 1 and names[0] == "moods" else ""
            subject = filled(self._choices.pick("s", self._wordings["subject"]), self._slots)
            predicates = [self._predicate(name) for name in names[:size] if name in self._slots]
            sentences.append(f"{front}{subject} {_joined(predicates)}")
        return sentences

    def _predicate(self, name: str) -> str:
        """The predicate for one slot."""
        wordings = self._wordings["predicates"][name]
        if name != "moods":
            return self._said(name, wordings)
        moods = self._slots["moods"].text
        plain = moods.replace(", and ", ", ").replace(" and ", ", ")
        self._slots["moody"] = Part(f"{article(plain)} {plain}")
        if any(" " in mood for mood in plain.split(", ")):
            wordings = [wording for wording in wordings if "{moods}" in wording]
        predicate = self._said(name, wordings)
        for used in ("moods", "moody"):
            self._slots.pop(used, None)
        return predicate


def _joined(said: Sequence[str]) -> str:
    """Predicates of one subject: `is calm and would suit films`."""
    if len(said) < 3:
        return " and ".join(said)
    return f"{', '.join(said[:-1])}, and {said[-1]}"
