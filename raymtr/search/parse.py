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
    """The slots of a query, and tokens to leave out or to match otherwise."""

    include: list[Include] = field(default_factory=list)
    excluded: list[Exclude] = field(default_factory=list)
    filters: list[Facet] = field(default_factory=list)
    directions: list[Direction] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    negated: set[int] = field(default_factory=set)  # tokens to keep out of all searched texts
    dropped: set[int] = field(default_factory=set)  # tokens that do not describe the sound
    unmatched: list[int] = field(default_factory=list)  # tokens that no slot matched
    terms_without_tag: list[str] = field(default_factory=list)  # music terms, not in this catalog


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
            if item.role in ("facet", "ignored", "instrumental"):
                parsed.dropped |= tokens
        matched = {position for item in items for position in range(item.start, item.end)}
        free = [
            position
            for position in range(len(self.query.tokens))
            if position not in matched and position not in self.taken
        ]
        parsed.unmatched = sorted({*free, *parsed.unmatched} - parsed.negated)
        return parsed

    def _apply_negation(self, items: list[Item], parsed: Parsed) -> None:
        """Turns the items in the scope of a negation into exclusions."""
        for index, item in enumerate(items):
            first = self.query.tokens[item.start]
            if item.role == "not":
                negated, scope_end = self._scope(items, index)
                self._exclude(item, negated, scope_end, parsed)
            elif item.role == "postfix not" and index and items[index - 1].end == item.start:
                self._exclude(item, [items[index - 1]], item.end, parsed)
            elif item.role == "absence" or (first.minus and item.role in ("tag", "facet")):
                self._exclude(item, [item], item.end, parsed)

    def _scope(self, items: list[Item], index: int) -> tuple[list[Item], int]:
        """The items in the scope of the negation at `index`, and the token where its scope ends."""
        tokens = self.query.tokens
        clause, scope_end = tokens[items[index].start].clause, items[index].end
        clause_end = next(
            (p for p in range(scope_end, len(tokens)) if tokens[p].clause != clause), len(tokens)
        )
        negated: list[Item] = []
        joined = linked = False
        for item in items[index + 1 :]:
            if item.start >= clause_end:
                if not (negated and self._continues_list(items, item, clause_end)):
                    break
                clause_end = next(
                    (
                        p
                        for p in range(item.end, len(tokens))
                        if tokens[p].clause != tokens[item.start].clause
                    ),
                    len(tokens),
                )
            key = self.query.key(item.start, item.end)
            if item.role == "stop":
                if negated and key in self.lexicon.cues["and"]:
                    linked = True
                    joined = key in ("and", "und", "et", "y", "e", "и", "和")
                elif negated and key in self.lexicon.cues["ends_not"]:
                    break
                continue
            if item.role in ("not", "postfix not", "direction"):
                break
            if joined and item.theme != negated[-1].theme:
                break
            # "without drums from the 80s": a facet after a tag is outside of the negation.
            new_facet = item.role in ("facet", "ignored")
            if negated and new_facet and negated[-1].role == "tag" and not linked:
                break
            negated.append(item)
            scope_end = item.end
            joined = linked = False
        return negated, scope_end if negated else clause_end

    def _continues_list(self, items: list[Item], item: Item, position: int) -> bool:
        """Whether a comma continues a list that ends in "or": "no drums, bass or vocals"."""
        if item.role != "tag" or item.start != position:
            return False
        after = [other for other in items if other.start >= item.end]
        return bool(after) and self.query.key(after[0].start, after[0].end) in (
            "or",
            "nor",
            "oder",
            "ou",
        )

    def _exclude(self, cue: Item, negated: list[Item], scope_end: int, parsed: Parsed) -> None:
        """Adds exclusions of the negated items; without items, of the words after the cue."""
        tokens = self.query.tokens
        if not negated:
            free = [
                position
                for position in range(cue.end, min(scope_end, cue.end + 4))
                if position not in self.taken and not self._is_stop(tokens[position].key)
            ]
            if free:
                term = self.query.words(free[0], free[-1] + 1)
                words = self.query.words(cue.start, free[-1] + 1)
                tags = self.vocabulary.family((self.query.key(free[0], free[-1] + 1),))
                parsed.excluded.append(Exclude(term=term, words=words, tags=tags))
                parsed.negated |= set(range(cue.start, free[-1] + 1))
            return
        for item in negated:
            low, high = min(cue.start, item.start), max(cue.end, item.end)
            words = self.query.words(low, high)
            parsed.negated |= set(range(low, high))
            term = self.query.words(item.start, item.end)
            if item.role == "facet":
                slot: Facet = item.slot
                parsed.filters.append(_without(slot.column, slot.where, words))
            elif item.role == "instrumental":
                self._fill(Item(item.start, item.end, "tag", self._vocals_include(words)), parsed)
            elif item.role == "ignored":
                parsed.ignored.append(item.slot)
            elif item.role in ("tag", "absence"):
                parsed.excluded.append(self._exclusion(item, term, words))
                self._exclude_by_vocal_column(item, words, parsed)

    def _exclusion(self, item: Item, term: str, words: str) -> Exclude:
        vocabulary = self.vocabulary
        key = item.slot if item.role == "absence" else self.query.key(item.start, item.end)
        term = key if item.role == "absence" else term
        concept = vocabulary.concept(key, self.language)
        keys = (key, *(concept.same if concept else ()))
        tags = vocabulary.family(keys)
        if set(keys) & self.lexicon.voices and "choir" not in keys[:1] and "rap" not in keys[:1]:
            tags = tuple(dict.fromkeys((*tags, *vocabulary.vocal_tags())))
        shown = concept.name if concept and self.lexicon.language.get(key, "en") != "en" else term
        return Exclude(term=shown, words=words, tags=tags)

    def _vocals_include(self, words: str) -> Include:
        meaning = self.vocabulary.meaning(VOICE_WORDS[0]) or self.vocabulary.meaning(VOICE_WORDS[1])
        tags = meaning.tags if meaning else ()
        return Include(
            term="vocals", words=words, tags=tags, wider=meaning.wider if meaning else ()
        )

    def _exclude_by_vocal_column(self, item: Item, words: str, parsed: Parsed) -> None:
        """If vocals are excluded, also requires it of a column that records vocals."""
        key = item.slot if item.role == "absence" else self.query.key(item.start, item.end)
        concept = self.vocabulary.concept(key, self.language)
        if concept is None or concept.name != VOICE_WORDS[0]:
            return
        if (slot := self._no_vocals_facet(words)) is not None:
            parsed.filters.append(slot)

    def _no_vocals_facet(self, words: str) -> Facet | None:
        """No vocals, on a column that records them; tracks of unknown value come last."""
        column = self.vocabulary.column(VOCAL)
        if column is None:
            return None
        if (vocals := self._vocals_condition(column, present=True)) is not None:
            return _without(column, vocals, words)
        no_vocals = self._vocals_condition(column, present=False)
        return Facet(column=column, where=no_vocals, words=words) if no_vocals else None

    def _vocals_condition(self, column: str, *, present: bool) -> str | None:
        """The condition for vocals or for no vocals, on a column that records them."""
        kind = str(self.vocabulary.kind(column))
        if kind == "bool":
            return f"{column} = {'true' if present else 'false'}"
        if kind in ("float", "double"):
            return f"{column} {'>=' if present else '<'} 0.5"
        no_vocals = ("instrumental", "none", "no", "false", "no vocals")
        values = [
            v for v in self.vocabulary.values(column) if (v.casefold() in no_vocals) != present
        ]
        return f"{column} in ({', '.join(map(quoted, values))})" if values else None

    def _fill(self, item: Item, parsed: Parsed) -> None:
        if item.role == "tag" and (item.slot.tags or item.slot.wider):
            parsed.include.append(item.slot)
        elif item.role == "tag":
            parsed.terms_without_tag.append(item.slot.words)
            parsed.unmatched += range(item.start, item.end)
        elif item.role == "facet":
            parsed.filters.append(item.slot)
        elif item.role == "direction":
            parsed.directions.append(item.slot)
        elif item.role == "ignored":
            parsed.ignored.append(item.slot)
        elif item.role == "instrumental":
            self._instrumental(item, parsed)

    def _instrumental(self, item: Item, parsed: Parsed) -> None:
        """Adds the slot of "instrumental": on a column, else a tag, else without vocal tags."""
        words: str = item.slot
        if (slot := self._no_vocals_facet(words)) is not None:
            parsed.filters.append(slot)
        elif tags := self.vocabulary.tag(self.query.key(item.start, item.end)):
            parsed.include.append(Include(term=words, words=words, tags=tags, wider=tags))
        else:
            voices = self.vocabulary.vocal_tags()
            parsed.excluded.append(Exclude(term="vocals", words=words, tags=voices))


def _without(column: str, where: str, words: str) -> Facet:
    """The negation of a condition; unknown values satisfy it, but they come last."""
    known = f"{column} is not null and not ({where})"
    return Facet(
        column=column, where=f"({column} is null or not ({where}))", words=words, known=known
    )
