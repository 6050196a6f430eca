"""Applies negations to the phrases of a query and turns phrases into slots.

The scope of a negation is what follows it, up to the end of its clause, or what precedes it in
languages with that word order. What lies in the scope becomes an exclusion over a family of tags,
or an inverted condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raymtr.search.facets import quoted
from raymtr.search.phrases import Item, Phrases
from raymtr.search.slots import Direction, Exclude, Facet, Ignored, Include

VOICE_WORDS = ("voice", "vocals")
VOCAL = ("vocal", "vocals")  # column names


@dataclass
class Parsed:
    """The slots of a query, and the tokens that each kind took."""

    include: list[Include] = field(default_factory=list)
    excluded: list[Exclude] = field(default_factory=list)
    filters: list[Facet] = field(default_factory=list)
    ways: list[Direction] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    negated: set[int] = field(default_factory=set)  # tokens that no search may read
    dropped: set[int] = field(default_factory=set)  # tokens that do not describe the sound
    unsaid: list[int] = field(default_factory=list)  # tokens that no slot took
    unmet: list[str] = field(default_factory=list)  # music terms that no tag here matches


class Parser(Phrases):
    """Parses one query against one vocabulary into slots, after names are removed."""

    def parse(self) -> Parsed:
        """All slots except names."""
        items = self.items()
        parsed = Parsed()
        self._apply_negation(items, parsed)
        for item in items:
            tokens = set(range(item.start, item.end))
            if tokens & parsed.negated:
                continue
            self._fill(item, parsed)
            if item.role in ("facet", "ignored", "sung", "unsung"):
                parsed.dropped |= tokens
        said = {place for item in items for place in range(item.start, item.end)}
        free = [
            place
            for place in range(len(self.question.tokens))
            if place not in said and place not in self.taken
        ]
        parsed.unsaid = sorted({*free, *parsed.unsaid} - parsed.negated)
        return parsed

    def _apply_negation(self, items: list[Item], parsed: Parsed) -> None:
        """Turns the items in the scope of a negation into exclusions."""
        for index, item in enumerate(items):
            first = self.question.tokens[item.start]
            if item.role == "not":
                negated, reach = self._scope(items, index)
                self._exclude(item, negated, reach, parsed)
            elif item.role == "not after" and index and items[index - 1].end == item.start:
                self._exclude(item, [items[index - 1]], item.end, parsed)
            elif item.role == "less" or (first.minus and item.role in ("tag", "facet")):
                self._exclude(item, [item], item.end, parsed)

    def _scope(self, items: list[Item], index: int) -> tuple[list[Item], int]:
        """The items in the scope of the negation at `index`, and the token where its scope ends."""
        tokens = self.question.tokens
        clause, reach = tokens[items[index].start].clause, items[index].end
        ends = next(
            (p for p in range(reach, len(tokens)) if tokens[p].clause != clause), len(tokens)
        )
        negated: list[Item] = []
        joined = linked = False
        for item in items[index + 1 :]:
            if item.start >= ends:
                if not (negated and self._goes_on(items, item, ends)):
                    break
                ends = next(
                    (
                        p
                        for p in range(item.end, len(tokens))
                        if tokens[p].clause != tokens[item.start].clause
                    ),
                    len(tokens),
                )
            key = self.question.key(item.start, item.end)
            if item.role == "stop":
                if negated and key in self.lexicon.cues["and"]:
                    linked = True
                    joined = key in ("and", "und", "et", "y", "e", "и", "和")
                elif negated and key in self.lexicon.cues["ends_not"]:
                    break
                continue
            if item.role in ("not", "not after", "way"):
                break
            if joined and item.theme != negated[-1].theme:
                break
            # "without drums from the 80s": a year, a tempo or a key after a tag starts anew.
            new_facet = item.role in ("facet", "ignored")
            if negated and new_facet and negated[-1].role == "tag" and not linked:
                break
            negated.append(item)
            reach = item.end
            joined = linked = False
        return negated, reach if negated else ends

    def _goes_on(self, items: list[Item], item: Item, place: int) -> bool:
        """Whether a comma belongs to a list that ends in "or": "no drums, bass or vocals"."""
        if item.role != "tag" or item.start != place:
            return False
        after = [other for other in items if other.start >= item.end]
        return bool(after) and self.question.key(after[0].start, after[0].end) in (
            "or",
            "nor",
            "oder",
            "ou",
        )

    def _exclude(self, cue: Item, negated: list[Item], reach: int, parsed: Parsed) -> None:
        tokens = self.question.tokens
        if not negated:
            free = [
                place
                for place in range(cue.end, min(reach, cue.end + 4))
                if place not in self.taken and not self._is_stop(tokens[place].key)
            ]
            if free:
                words = self.question.words(free[0], free[-1] + 1)
                said = self.question.words(cue.start, free[-1] + 1)
                tags = self.vocabulary.family((self.question.key(free[0], free[-1] + 1),))
                parsed.excluded.append(Exclude(term=words, words=said, tags=tags))
                parsed.negated |= set(range(cue.start, free[-1] + 1))
            return
        for item in negated:
            low, high = min(cue.start, item.start), max(cue.end, item.end)
            words = self.question.words(low, high)
            parsed.negated |= set(range(low, high))
            term = self.question.words(item.start, item.end)
            if item.role == "facet":
                slot: Facet = item.slot
                parsed.filters.append(_without(slot.column, slot.where, words))
            elif item.role == "unsung":
                self._fill(Item(item.start, item.end, "tag", self._voices(words)), parsed)
            elif item.role == "ignored":
                parsed.ignored.append(item.slot)
            elif item.role in ("tag", "less"):
                parsed.excluded.append(self._family(item, term, words))
                self._sung(item, words, parsed)

    def _family(self, item: Item, term: str, words: str) -> Exclude:
        vocabulary = self.vocabulary
        key = item.slot if item.role == "less" else self.question.key(item.start, item.end)
        term = key if item.role == "less" else term
        concept = vocabulary.concept(key, self.language)
        keys = (key, *(concept.same if concept else ()))
        tags = vocabulary.family(keys)
        if set(keys) & self.lexicon.voices and "choir" not in keys[:1] and "rap" not in keys[:1]:
            tags = tuple(dict.fromkeys((*tags, *vocabulary.voices())))
        shown = concept.name if concept and self.lexicon.language.get(key, "en") != "en" else term
        return Exclude(term=shown, words=words, tags=tags)

    def _voices(self, words: str) -> Include:
        meaning = self.vocabulary.said(VOICE_WORDS[0]) or self.vocabulary.said(VOICE_WORDS[1])
        tags = meaning.tags if meaning else ()
        return Include(
            term="vocals", words=words, tags=tags, wider=meaning.wider if meaning else ()
        )

    def _sung(self, item: Item, words: str, parsed: Parsed) -> None:
        """Where vocals are excluded, also demands it of a column that records vocals."""
        key = item.slot if item.role == "less" else self.question.key(item.start, item.end)
        concept = self.vocabulary.concept(key, self.language)
        if concept is None or concept.name != VOICE_WORDS[0]:
            return
        if (slot := self._unsung(words)) is not None:
            parsed.filters.append(slot)

    def _unsung(self, words: str) -> Facet | None:
        """No vocals, on a column that records them: tracks of unknown state come last."""
        column = self.vocabulary.column(VOCAL)
        where = self._vocal_is(column, sung=True) if column else None
        if column is None or where is None:
            silent = self._vocal_is(column, sung=False) if column else None
            return Facet(column=column, where=silent, words=words) if column and silent else None
        return _without(column, where, words)

    def _vocal_is(self, column: str, *, sung: bool) -> str | None:
        """The condition for vocals or for no vocals, on a column that records them."""
        kind = str(self.vocabulary.kind(column))
        if kind == "bool":
            return f"{column} = {'true' if sung else 'false'}"
        if kind in ("float", "double"):
            return f"{column} {'>=' if sung else '<'} 0.5"
        silent = ("instrumental", "none", "no", "false", "no vocals")
        values = [v for v in self.vocabulary.values(column) if (v.casefold() in silent) != sung]
        return f"{column} in ({', '.join(map(quoted, values))})" if values else None

    def _fill(self, item: Item, parsed: Parsed) -> None:
        if item.role == "tag" and (item.slot.tags or item.slot.wider):
            parsed.include.append(item.slot)
        elif item.role == "tag":
            parsed.unmet.append(item.slot.words)
            parsed.unsaid += range(item.start, item.end)
        elif item.role == "facet":
            parsed.filters.append(item.slot)
        elif item.role == "way":
            parsed.ways.append(item.slot)
        elif item.role == "ignored":
            parsed.ignored.append(item.slot)
        elif item.role == "unsung":
            self._instrumental(item, parsed)

    def _instrumental(self, item: Item, parsed: Parsed) -> None:
        """Handles "instrumental": a matching column or tag, else the absence of vocal tags."""
        words: str = item.slot
        if (slot := self._unsung(words)) is not None:
            parsed.filters.append(slot)
        elif tags := self.vocabulary.tag(self.question.key(item.start, item.end)):
            parsed.include.append(Include(term=words, words=words, tags=tags, wider=tags))
        else:
            voices = self.vocabulary.voices()
            parsed.excluded.append(Exclude(term="vocals", words=words, tags=voices))


def _without(column: str, where: str, words: str) -> Facet:
    """The opposite of a condition: unknown values do not violate it, but they come last."""
    known = f"{column} is not null and not ({where})"
    return Facet(
        column=column, where=f"({column} is null or not ({where}))", words=words, known=known
    )
