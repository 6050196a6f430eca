"""The content of a caption's slots: tags, by role, as the phrases that sentences are built from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from raymtr.captions.english import article, lexicon
from raymtr.captions.writing.grammar import Part
from raymtr.captions.writing.tag_roles import Form, Role, form_of, head_of

MOST_MOODS = 3  # before the noun
MOST_SOUNDS = 5  # in one list; further ones go into a second list
SONG_HEADS = ("song", "track", "piece", "tune", "song")
PIECE_HEADS = ("piece", "track", "tune", "composition", "track")
# Tags of each role that read well in one caption. Further ones, the earlier roles first, are what a
# long list leaves out.
ROOM: dict[Role, int] = {
    **{"other": 0, "as": 1, "use": 1, "place": 1, "quality": 1, "recording": 1, "piece": 1},
    **{"tempo": 1, "key": 2},
    **{"air": 1, "feeling": 2, "genre": 3, "mood": 4, "state": 3, "voice": 2, "sound": 6},
}
LEFT_OUT = 4  # at most one tag in so many
SHORT_QUALITY = re.compile(r"\w+ (?:quality|fidelity)", re.IGNORECASE)


class Choices:
    """The random choices of one caption, in the order in which they are taken."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self._numbers = iter(numbers)
        self.taken: list[str] = []

    def chance(self, share: float) -> bool:
        """True in `share` of all captions."""
        return next(self._numbers, 0.5) < share

    def pick(self, name: str, among: Sequence[str]) -> str:
        """One of `among`, recorded under `name`."""
        at = int(next(self._numbers, 0.5) * len(among))
        self.taken.append(f"{name}{at}")
        return among[at]

    def order(self, forms: Sequence[Form]) -> list[Form]:
        """`forms` as given or in another order."""
        if self.chance(0.5):
            return list(forms)
        keys = [next(self._numbers, 0.5) for _ in forms]
        return [form for _, form in sorted(zip(keys, forms, strict=True), key=lambda both: both[0])]


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, and c`."""
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def fill_slots(tags: Sequence[str], choices: Choices) -> dict[str, Part]:
    """The slots of a caption of `tags`; `choices` decides what is free.

    Always `what`, `it`, `this` and `the`; also `plain` if `what` is a bare noun such as `a track`.
    """
    forms = [form for tag in tags for form in _forms(tag)]
    return _Slots(_readable(choices.order(forms)), choices).filled()


def _readable(forms: Sequence[Form]) -> list[Form]:
    """`forms` without those beyond the ROOM of their role; most of a list is always kept."""
    beyond = [
        form
        for role, room in ROOM.items()
        for form in [form for form in forms if form.role == role][room:]
    ]
    left_out = {id(form) for form in beyond[: len(forms) // LEFT_OUT]}
    return [form for form in forms if id(form) not in left_out]


def _forms(tag: str) -> list[Form]:
    """The form of `tag`; genres joined by slashes are several: `country/pop`."""
    form = form_of(tag)
    parts = [part for part in re.split(r"\s*/\s*", form.bare) if part]
    return [form_of(part) for part in parts] if form.role == "genre" else [form]


class _Slots:
    """Groups of forms by role, moved into slots one after another."""

    def __init__(self, forms: Sequence[Form], choices: Choices) -> None:
        self._choices = choices
        self._groups: dict[str, list[Form]] = {}
        for form in forms:
            self._groups.setdefault(form.role, []).append(form)
        self._slots: dict[str, Part] = {}

    def filled(self) -> dict[str, Part]:
        self._what()
        self._recording()
        self._heard()
        airs = [form.text for form in self._take("air")]
        if feelings := self._bare("feeling"):
            airs.append(f"a sense of {listed(feelings)}")
        absent = self._take("absence")
        none = [form for form in absent if form.bare.partition(" ")[0] in ("no", "zero")]
        others = self._take("other")
        topics = [form for form in others if form.text != form.bare or form.plural]
        labels = [f'"{form.bare}"' for form in others if form not in topics]
        simple = {
            "airs": airs,
            "tempo": [_pace(form) for form in self._take("tempo")],
            "key": sorted(self._text("key"), key=lambda text: text[0].isdigit()),  # metre last
            "lack": [form.bare for form in absent if form not in none],
            "tapes": self._text("recording"),
            "quality": self._bare("quality"),
            "moods": self._bare("mood"),
            "styles": [_style(genre) for genre in self._bare("genre")],
            "as": [*self._text("as"), *self._text("piece")],
            "uses": self._text("use"),
            "places": self._bare("place"),
            "language": self._text("language"),
            "topics": [form.text for form in topics],
            "other": labels,
        }
        self._slots |= {name: Part(listed(words)) for name, words in simple.items() if words}
        if none:
            self._slots["absence"] = Part(listed([f.bare for f in none]), none[0].plural)
        return self._slots

    def _take(self, role: str) -> list[Form]:
        return self._groups.pop(role, [])

    def _bare(self, role: str) -> list[str]:
        return [form.bare for form in self._take(role)]

    def _text(self, role: str) -> list[str]:
        return [form.text for form in self._take(role)]

    def _heard(self) -> None:
        """Voices and instruments."""
        voice, sounds = self._take("voice"), self._take("sound")
        if len(sounds) > MOST_SOUNDS:
            cut = (len(sounds) + 1) // 2
            sounds, rest = sounds[:cut], sounds[cut:]
            self._slots["more"] = self._several(rest)
        if sounds:
            self._slots["sounds"] = self._several(sounds)
        if voice:
            self._slots["voice"] = self._several(voice)

    def _several(self, forms: Sequence[Form]) -> Part:
        """A list; it may have one article for all items: `a piano, steady bass, and drums`."""
        words = [form.text for form in forms]
        if len(forms) > 1 and self._choices.chance(0.5):
            first = sorted(forms, key=lambda form: form.text == form.bare)
            words = [first[0].text, *(form.bare for form in first[1:])]
        return Part(listed(words), len(forms) > 1 or forms[0].plural)

    def _what(self) -> None:
        """The noun phrase for the music: moods, tempo, kind, origin and genre before a noun."""
        before = self._before()
        head = self._choices.pick("h", SONG_HEADS if "voice" in self._groups else PIECE_HEADS)
        used = self._named_genres()
        bare, plural = bool(used) and used[0].bare.endswith("music"), False
        piece = self._named_piece(before, used)
        if piece:
            head, plural, bare = piece.bare, piece.plural, False
        words = [*before, listed([form.bare for form in used]), "" if bare else head]
        words = [word for word in words if word]
        phrase = " ".join(words)
        if not (plural or bare):
            phrase = f"{article(phrase)} {phrase}"
        if since := self._bare("era"):
            phrase += f" from {listed(since)}"
        short = "music" if plural or bare else head.rpartition(" ")[2]
        self._slots |= {
            "what": Part(phrase, plural),
            "it": Part("it"),
            "this": Part(f"this {head}"),
            "the": Part(f"the {short}"),
        }
        if not piece and phrase.endswith(head) and len(words) == 1:
            self._slots["plain"] = Part(head)

    def _before(self) -> list[str]:
        """The adjectives before the noun."""
        words = [", ".join(form.bare for form in self._leading_moods())]
        paces = [form for form in self._groups.get("tempo", []) if is_adjective(form)]
        # "uptempo" is no name of a pace, so it must precede the noun.
        if paces and (paces[0].bare.endswith("tempo") or self._choices.chance(0.6)):
            words.append(paces[0].bare)
            self._groups["tempo"].remove(paces[0])
        return [*words, *self._bare("kind"), *self._bare("origin")]

    def _leading_moods(self) -> list[Form]:
        """The adjectives before the noun; the others are left for a predicate."""
        moods = self._groups.get("mood", [])
        able = [form for form in moods if " " not in form.bare]
        count = min(MOST_MOODS, len(able))
        if len(moods) > MOST_MOODS or self._choices.chance(0.4):
            count = min(count, 0 if self._choices.chance(0.5) else 2)
        self._groups["mood"] = [form for form in moods if form not in able[:count]]
        return able[:count]

    def _named_genres(self) -> list[Form]:
        """Up to two genres before the noun, taken from the group."""
        genres = self._groups.get("genre", [])
        used = [form for form in genres if not form.bare.endswith(("music", "genre"))]
        used = used[: 3 if all(" " not in form.bare for form in used[:3]) else 2]
        if genres and genres[0].bare.endswith("music"):
            used = genres[:1]
        self._groups["genre"] = [form for form in genres if form not in used]
        return used

    def _named_piece(self, before: Sequence[str], genres: Sequence[Form]) -> Form | None:
        """The piece that the music is called, taken from its group: `a cover`."""
        pieces = self._groups.get("piece", [])
        for form in pieces:
            short = " " not in form.bare or not genres
            short = short and form.bare.rpartition(" ")[2] not in " ".join(before)
            if short and not re.match(r"\d|two |three |various ", form.bare):
                self._groups["piece"] = [other for other in pieces if other is not form]
                return form
        return None

    def _recording(self) -> None:
        """The recording: `a noisy, low quality live recording`."""
        groups = self._groups
        states, tapes = self._bare("state"), groups.get("recording", [])
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
        self._slots |= {
            "of": Part("with" if shown else "of"),
            "recording": Part(
                f"{article(phrase)} {phrase}" if one and not mass else phrase, not one
            ),
            "tape": Part(f"the {phrase}", not one),
        }


def is_adjective(form: Form) -> bool:
    """Whether a tempo can precede a noun unchanged: `uptempo`, `slow`."""
    return re.fullmatch(r"\w*-?\w+", form.bare) is not None and not form.bare[0].isdigit()


def _style(genre: str) -> str:
    return f"the {genre}" if genre.endswith("genre") else genre


def _pace(form: Form) -> str:
    """A tempo after `at`: `a slow tempo`, `a slow pace`, `124 bpm`."""
    if re.search(r"(?<![\w-])tempos?$|paces?$|speeds?$|bpm$|\d", form.bare.casefold()):
        return form.text
    noun = "tempo" if form.bare.endswith("paced") else "pace"
    return f"{article(form.bare)} {form.bare} {noun}"
