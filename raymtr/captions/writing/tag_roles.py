"""The role of a tag in a sentence, and its form there.

A tag is anything a person may have typed: `sad`, `A minor`, `rock---alternative`, `no drums`, `the
low quality recording`. Its role (`Role`) is determined by the whole tag if `lexicon.toml` has it,
else by a pattern (a tempo in bpm, a decade), else by its head: the last noun, or the one before
`of` or `with`. Otherwise the part of speech decides (`lemminflect`'s lexicon, then the ending). An
unknown word is `other`, the role with sentences that fit any word.

The words of a tag keep their form and order. An article, a noun (`female performer`) or capitals
may be added; a leading `in` or `for` and the apostrophe of a decade are dropped. Singulars are used
only to find the role and the number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from raymtr.captions.english import article, lexicon, parts_of_speech, singular

Role = Literal[
    "genre", "kind", "mood", "tempo", "key", "sound", "voice", "absence", "state", "quality",
    "recording", "piece", "use", "place", "as", "era", "origin", "language", "feeling", "air",
    "other",
]  # fmt: skip

KEY = re.compile(
    r"(?:in )?(?:the key of )?([a-g])\s?(#|♯|b|♭| sharp| flat)?[ -]?"
    r"(major|minor|maj|min|dorian|phrygian|lydian|mixolydian|aeolian|locrian)( key| scale)?"
)
TEMPO = re.compile(r"(?:about |around |ca\.? )?\d{2,3}(?:[.,]\d+)?(?:\s?-\s?\d+)?\s?bpm")
DECADE = re.compile(r"(?:early |mid |late )?[-']?(?:(?:1[5-9]|20)?\d0['’]?s|(?:1[6-9]|20)\d\d)")
CENTURY = re.compile(r"\d\d?(?:st|nd|rd|th)[ -]century")
SPEEDS = (
    r"(?:very |slightly |almost )?(?:slow|slower|medium|mid|moderate|fast|faster|up|down)"
    r"(?:[ -]?(?:tempo|paced?|speed))?"
)
SPEED = re.compile(rf"{SPEEDS}(?:(?: to |-to-|/| and | or |-| ){SPEEDS})*")
METRE = re.compile(r"\d{1,2}/(?:2|4|8|16)(?: time(?: signature)?| beat| metre| meter)?")
CATEGORY = re.compile(
    r"(?:genre|instrument|mood(?:/theme)?|theme)(?:---|:\s*)(?=\S)", re.IGNORECASE
)
ADJECTIVE = re.compile(
    r"(?:\w{2,}(?:able|ible|ful|less|ous|ish|ive|esque|ern|worthy)|\w{3,}(?:ic|ical|ial|ual|ed|ary|like))$"
)
ABSTRACT = re.compile(r"\w{3,}(?:ness|ity|ment|ship|hood)$")


COUNTED = ("sound", "voice", "recording", "piece", "air", "as", "absence", "other")


@dataclass(frozen=True)
class Form:
    """A tag in a sentence: its role, its words, and its number."""

    role: Role
    bare: str  # the words alone: `acoustic guitar`
    text: str  # with an article where English needs one: `an acoustic guitar`
    plural: bool = False


@lru_cache(maxsize=1 << 16)
def form_of(tag: str) -> Form:
    """The role and form of `tag`, which has at least one word."""
    text = CATEGORY.sub("", tag.strip())
    text = re.sub(r"\s*-{3,}\s*", "/", text).replace("_", " ")
    text = " ".join(text.split()).strip(' .,;:!?"') or tag.strip()
    low = re.sub(r"(?<=[a-z]) \d$", "", text.casefold().replace("’", "'"))  # electric piano 2
    role, words = _role(low), _written(text)
    if role == "other" and low in lexicon().places:
        role = "era"
    bare = _spoken(role, words)
    plural = role in COUNTED and is_plural(low)
    with_article = bare
    if (
        role == "use"
        and singular(head_of(low)) in lexicon().sets["counted"]
        and not plural
        and not is_plural(low)
    ):
        with_article = f"{article(bare)} {bare}"
    if role in ("sound", "voice", "recording", "piece", "air", "tempo", "key", "language"):
        with_article = np_of(role, bare, low)
    if role == "other" and 1 < len(low.split()) < 4 and "NOUN" in parts_of_speech(head_of(low)):
        with_article = np_of(role, bare, low)
    return Form(role, bare, with_article, plural)


def _role(low: str) -> Role:
    """The role of a tag in lower case."""
    for rule in (_by_list, _by_pattern, _by_head, _by_speech):
        role = rule(low)
        if role is not None:
            return role
    return "other"


ALIASES: dict[str, Role] = {
    "kind_adjective": "kind",
    "voice_adjective": "voice",
    "use_gerund": "use",
    "sound_gerund": "sound",
    "voice_gerund": "voice",
}


def _by_list(low: str) -> Any:
    known = lexicon()
    name = known.whole.get(low) or known.whole.get(low.replace("-", " "))
    if low in known.origins:
        return "origin"
    if name in (None, "mass_nouns", "agents"):
        parts = re.split(r"\s*/\s*", low)
        if len(parts) > 1 and all(parts) and not METRE.fullmatch(low):
            roles = {_by_list(part) or _by_head(part) for part in parts}
            return next(iter(roles)) if len(roles) == 1 else ("genre" if "genre" in roles else None)
        return None
    return ALIASES.get(name, name)


def _by_pattern(low: str) -> Role | None:
    if TEMPO.fullmatch(low) or SPEED.fullmatch(low):
        return "tempo"
    if KEY.fullmatch(low):
        return "key"
    if low in ("east coast", "west coast") or DECADE.fullmatch(low) or CENTURY.fullmatch(low):
        return "era"
    if METRE.fullmatch(low):
        return "key"
    first, _, rest = low.partition(" ")
    if rest and first in ("no", "without", "lacks", "lacking", "minus", "zero"):
        return "absence"
    if rest and first == "for":
        return "use"
    if rest and first == "full":
        return "mood"
    if low.startswith("in love"):
        return "mood"
    if rest and first in ("at", "in", "on", "by", "after", "before", "during"):
        return "place" if low.rpartition(" ")[2] not in lexicon().heads else None
    if rest and first == "sung":
        return "language"
    return None


def head_of(low: str) -> str:
    """The head word of a phrase: its last, or the one before a preposition."""
    words: list[str] = re.findall(r"[\w&'+-]+", low)
    if not words:
        return low
    for place, word in enumerate(words):
        if place and word in lexicon().sets["after_head"]:
            last = _listed(words[-1]) and not _listed(words[place - 1])
            return words[-1] if last else words[place - 1]
    return words[-1]


def _listed(word: str) -> bool:
    return word in lexicon().heads or singular(word) in lexicon().heads


def _by_head(low: str) -> Role | None:
    known, head = lexicon(), head_of(low).removesuffix("'s")
    words = low.split()
    one = singular(head)
    role = known.heads.get(head) or known.heads.get(one)
    part = head.rpartition("-")[2]
    if role is None and part != head:
        role = known.heads.get(part) or known.heads.get(singular(part))
    if len(words) == 1:
        if role in ("mass", "quality", "tempo", "key"):
            return None if role == "mass" else "other"
        if role == "air":
            return "feeling"
        return role  # type: ignore[return-value]
    if low.startswith("non-"):
        return "mood"
    if one == "hit" and any(
        known.heads.get(word, known.heads.get(singular(word))) == "sound" for word in words[:-1]
    ):
        return "sound"
    if role == "mass":
        return "genre"
    if role == "key" and len(words) <= 3:
        return "key"
    if role == "language" and len(words) > 3:
        return "voice"
    if role == "sound" and head == "section" and "intro" in low:
        return "recording"
    if role is not None:
        return role  # type: ignore[return-value]
    category = known.whole.get(one) or known.whole.get(head) or known.whole.get(part)
    if category == "genre" or (head in ("hop", "'n'", "roll", "worship", "age") and len(words) < 4):
        return "genre"
    if head in ("sounding", "paced"):
        return "tempo" if head == "paced" else "mood"
    if category == "tempo" and any(word.endswith("ing") for word in words):
        return "sound"
    if category in ("tempo", "state", "mood", "kind_adjective") and head == words[-1]:
        alias = {"kind_adjective": "piece" if head == "instrumental" else "mood"}
        return alias.get(category, category)  # type: ignore[return-value]
    if category in ("feeling", "use"):
        return category  # type: ignore[return-value]
    if words[-1].endswith("ing") and (
        words[0] in known.agents or singular(words[-2]) in known.agents
    ):
        return "sound"
    return None


def _by_speech(low: str) -> Role | None:
    """The role by the part of speech of the last word."""
    words = low.split()
    if {"is", "are", "to"} & set(words[1:]):
        return "other"
    if len(words) > 1 and words[-1].endswith(("ed", "in", "out")) and _listed(words[0]):
        return "sound"
    if words[-1].endswith("ly") and any(word.endswith("ing") for word in words[1:-1]):
        return "sound"
    last = words[-1].rpartition("-")[2] if "-" in words[-1] else words[-1]
    speech = parts_of_speech(last)
    if "ADJ" in speech:
        plain = "NOUN" not in speech or all({"ADJ", "ADV"} & parts_of_speech(w) for w in words)
        return "mood" if plain or len(words) == 1 else "other"
    stem = last.removesuffix("y")
    if stem != last and not speech and (parts_of_speech(stem) or parts_of_speech(f"{stem}e")):
        return "mood"
    if last.endswith("ing") and len(words) == 1:
        return "mood" if speech else "other"
    if last.endswith("ing") and len(words) > 1:
        return "mood" if words[0] in lexicon().sets["felt"] else "sound"
    if "NOUN" in speech:
        if ABSTRACT.fullmatch(last):
            return "feeling"
        return "other"
    if ADJECTIVE.fullmatch(last):
        return "mood"
    if last.endswith("s") and len(words) > 1 and words[-2].endswith("ing"):
        return "sound"
    return "other"


def is_plural(low: str) -> bool:
    """Whether the phrase is plural: `groovy bass lines`, `strings`."""
    words = low.split()
    head = head_of(low)
    if words[-1].endswith("ing") and len(words) > 1 and head == words[-1]:
        head = words[-2]
        if singular(head) not in lexicon().agents | {"bell", "string", "wave"}:
            return False
    if head in (
        "people",
        "vox",
        "harmonics",
        "keys",
        "vibes",
        "celli",
        "vocables",
        "children",
        "timpani",
    ):
        return True
    if " and " in low or low.split()[0] in (
        "two",
        "three",
        "multiple",
        "several",
        "various",
        "many",
    ):
        return True
    return head != singular(head)


def _is_doing(word: str) -> bool:
    """Whether a word is an activity, which is uncountable: `clapping`, never `string`."""
    return len(word) > 6 and word.endswith("ing") and "NOUN" not in parts_of_speech(word)


def np_of(role: Role, bare: str, low: str) -> str:
    """The noun phrase, with an article where English needs one."""
    words, known = low.split(), lexicon()
    head = head_of(low)
    if role == "language":
        if words[0] == "sung":
            return bare
        if words[0] in lexicon().sets["determiners"]:
            return f"in {bare}"
        return f"in {'a' if words[0] == 'foreign' else 'the'} {bare}"
    if re.match(r'"?(four|4)[ -]on[ -]the[ -]floor', low) and not is_plural(low):
        return f"a {bare}"
    if words[0] in lexicon().sets["determiners"]:
        return bare
    if role == "tempo":
        if words[-1] == "bpm" or not re.search(
            r"(?:tempo|pace|speed|metre|meter|signature|time)$", low
        ):
            return bare
        return f"{article(bare)} {bare}"
    if role == "key":
        if KEY.fullmatch(low) or METRE.fullmatch(low):
            return bare
        return bare if is_plural(low) else f"{article(bare)} {bare}"
    if is_plural(low) or (is_plural(words[0]) and head == words[-1] and not _listed(head)):
        return bare
    if words[-1].endswith("ly") or low == "white noise":
        return bare
    if words[-1] in ("in", "out") and is_plural(words[0]) and _listed(words[0]):
        return bare  # drums fade in
    if role in ("sound", "voice") and len(words) > 1 and head.endswith("ing") and head in words[1:]:
        agent = singular(words[words.index(head) - 1]) in known.agents
        return f"{article(bare)} {bare}" if agent else bare
    if role in ("sound", "voice") and len(words) == 1 and _is_doing(low):
        return bare
    mass = head in known.mass or (head.rpartition("-")[2] in known.mass and head != "e-bass")
    if mass and not (head == "bass" and len(words) > 1):
        return bare
    return f"{article(bare)} {bare}"


def _spoken(role: Role, words: str) -> str:
    """The words in the form that the role needs."""
    if role == "use":
        return re.sub(r"^for ", "", words, flags=re.IGNORECASE)
    if role == "voice" and words.casefold() in ("male", "female"):
        return f"{words} performer"
    if role == "key":
        words = re.sub(r"^in ", "", words, flags=re.IGNORECASE)
        return f"{words} time" if re.fullmatch(r"\d+/\d+", words) else words
    if role == "era":
        words = re.sub(r"(?<=\d)['’]s", "s", words)
        decade = re.search(r"\d0s$|century$|coast$", words)
        return f"the {words}" if decade else words
    return words


def _written(text: str) -> str:
    """Names with their capitals, a key with its own; the rest of a phrase in lower case."""
    known = lexicon()
    low = text.casefold()
    key = KEY.fullmatch(low)
    if key:
        at = low.index(key[1], key.start(1))
        return low[:at] + key[1].upper() + low[at + 1 :]
    if (text.isupper() and len(text.split()) > 1) or (text.istitle() and low in known.whole):
        text = low
    parts = re.split(r"([\w&'+-]+)", text)
    return "".join(known.written.get(p.casefold(), p) for p in parts)
