"""Finds names in a query: anchors of "like ...", requested artists, titles and albums.

A name is looked up after a cue ("like", "by", "album"), longest match first. Without a cue, a
name is accepted only if its words are not tags or common words. After a cue a name may be misspelt.
An unknown name is reported, with the nearest known names.
"""

from __future__ import annotations

import re

from raymtr.index.track_rows import NamedRow
from raymtr.names import name_key, spoken_name
from raymtr.search.misspelt import album_of, bare_title, partial_name, tracks_with_words
from raymtr.search.name_lookup import NEAREST, NameLookup, NamesFound
from raymtr.search.named import CatalogNames, NameMatch, NameReading, artist_keys
from raymtr.search.slots import Anchor, Exclude
from raymtr.search.transliterate import latin

MOST_ANCHORS = 5
KIND_WORDS = (
    *("thesong", "thetrack", "thetune", "thepiece", "theartist", "theband"),
    *("song", "artist"),
)
MIX_CUES = ("between", "acrossbetween", "crossbetween", "somewherebetween", "halfwaybetween")


class NameFinder(NameLookup):
    """Finds all names of one query."""

    def find(self, known: CatalogNames) -> NamesFound:
        """All names in the query; `known` is the catalog look-up of `span_texts`."""
        self.known = known
        self._find_meets()
        if not self.found.anchors:
            self._find_like_anchors()
        self._find_albums()
        self._find_artists()
        self._find_titles()
        self._find_album_of_artist()
        return self.found

    def _find_like_anchors(self) -> None:
        """Anchors after "like" and "unlike"."""
        position, group = 0, 0
        while position < len(self.query.tokens):
            cue = None if position in self.found.taken else self._cue(position, ("unlike", "like"))
            if cue is None or position in self.facet_tokens:
                position += 1
                continue
            end, kind = cue
            positive = kind == "like" and not self._negated(position)
            start = self._skip_kind(end)
            name = self._name_at(start) or self._misspelt_at(start, anchor=True)
            if name is None:
                if self._unknown_at(start, position):
                    return
                position = end
                continue
            last, named = name
            mixed = self.query.key(position, end) in MIX_CUES or "mix" in self.query.key(
                position, end
            )
            self._mark_taken(position if positive or kind == "unlike" else position - 1, last)
            self._add_anchor(named, position, last, positive, group)
            last = self._more_names(last, positive, group, mixed)
            group += 1
            position = last
        self._find_postfix_like()

    def _skip_kind(self, start: int) -> int:
        """The token after "the song" or "the artist", unless these words belong to the name."""
        for end in (start + 2, start + 1):
            key = self.query.key(start, end)
            if key in KIND_WORDS and self._name_at(start) is None and self._name_at(end):
                return end
        return start

    def _more_names(self, last: int, positive: bool, group: int, mixed: bool) -> int:
        """Further names of a list after "and" or "meets": "like X and Y", "a mix of X and Y"."""
        while last < len(self.query.tokens) and len(self.found.anchors) < MOST_ANCHORS:
            cue = self._cue(last, ("and", "meets"))
            if cue is None:
                break
            joint, kind = cue
            name = self._name_at(joint)
            if name is None:
                break
            end, named = name
            same = mixed or kind == "meets"
            group += 0 if same else 1
            self._add_anchor(named, joint, end, positive, group)
            self._mark_taken(last, end)
            last = end
        return last

    def _find_postfix_like(self) -> None:
        """Anchors whose cue follows the name, as in Japanese "Xみたいな"."""
        for start, end in sorted(self.name_spans, key=lambda span: span[0] - span[1]):
            if end >= len(self.query.tokens) or self.found.taken & set(range(start, end)):
                continue
            cue = self._cue(end, ("like_after",))
            named = self._match(start, end) if cue else None
            if cue is not None and named is not None and named.artist is not None:
                self._mark_taken(start, cue[0])
                self._add_anchor(named, start, end, True, len(self.found.anchors))

    def _find_meets(self) -> None:
        """The anchors of "X meets Y" without a preceding cue."""
        tokens = self.query.tokens
        for position in range(1, len(tokens) - 1):
            if tokens[position].key not in self.lexicon.cues["meets"]:
                continue
            before = next(
                (
                    (s, n)
                    for s in range(max(0, position - 6), position)
                    if (n := self._match(s, position))
                ),
                None,
            )
            after = self._name_at(position + 1)
            if before is None or after is None:
                continue
            start = before[0]
            if start and (cue := self._cue(start - 1, ("like",))) and cue[0] == start:
                start -= 1
            self._mark_taken(start, after[0])
            self._add_anchor(before[1], before[0], position, True, 0)
            self._add_anchor(after[1], position + 1, after[0], True, 0)
            return

    def _find_artists(self) -> None:
        """Artists whose own tracks are requested."""
        found, tokens = self.found, self.query.tokens
        for position in range(len(tokens)):
            cue = None if position in found.taken else self._cue(position, ("by",))
            if cue is None:
                continue
            end = cue[0]
            name = self._artist_at(end)
            key = self.query.key(position, cue[0])
            if name is None and key == "by":
                name = self._misspelt_at(end, anchor=False)
                if name is None and not found.anchors and self._unknown_at(end, position):
                    return
            if name is not None:
                self._add_artist(name[1], position, name[0])
                self._mark_taken(position, name[0])
                found.has_by_cue |= key == "by"
        taken = set(found.taken)
        for start, end in sorted(self.name_spans, key=lambda span: span[0] - span[1]):
            if found.taken & set(range(start, end)) or not self._may_be_artist(start, end):
                continue
            named = self.known.match(NameReading(None, self._words(start, end)))
            if named is not None and len(found.artists) < MOST_ANCHORS:
                self._add_artist(named, start, end)
                self._mark_taken(start, end)
        if found.artists or taken:
            return
        self._find_misspelt_artist()

    def _find_misspelt_artist(self) -> None:
        """A misspelt name without a cue, next to tags: "celtic jahzar"."""
        tokens, lexicon = self.query.tokens, self.lexicon
        unknown = [
            position
            for position, token in enumerate(tokens)
            if not lexicon.concept(token.key)
            and token.key not in lexicon.everyday
            and token.key not in lexicon.stops
            and token.key not in self.vocabulary.tags
            and self.vocabulary.speller.nearest(token.key) is None
            and len(token.key) > 3
        ]
        if not unknown or len(unknown) == len(tokens):
            return
        start, end = unknown[0], unknown[-1] + 1
        named = self._spelt_like(start, end, anchor=False)
        if named is not None:
            self._add_correction(named, start, end)
            self._add_artist(named, start, end)
            self._mark_taken(start, end)

    def _add_artist(self, named: NameMatch, start: int, end: int) -> None:
        words = self.query.words(start, end)
        if self._negated(start):
            cue = start - 1
            self._mark_taken(cue, end)
            phrase = self.query.words(cue, end)
            slot = Exclude(term=named.artist or words, words=phrase, artist=named.artist)
            self.found.excluded.append(slot)
            return
        anchor = Anchor(words=words, artist=named.artist, tracks=named.tracks)
        if all(named.artist != other.artist for other in self.found.artists):
            self.found.artists = (*self.found.artists, anchor)

    def _find_titles(self) -> None:
        """Tracks of the named artist whose title equals other words, ignoring leading zeros."""
        found, tokens = self.found, self.query.tokens
        if len(found.artists) != 1 or found.anchors:
            return
        key = name_key(found.artists[0].artist)
        rows = [row for row in self.known.rows if key in artist_keys(row)]
        titles: dict[str, list[NamedRow]] = {}
        for row in rows:
            latin_form = name_key(latin(row["title"] or "") or "") or ""
            for form in {_without_zeros(row["title"]), bare_title(row["title"]), latin_form}:
                titles.setdefault(form, []).append(row)
        free = [position for position in range(len(tokens)) if position not in found.taken]
        for length in range(len(free), 0, -1):
            for at in range(len(free) - length + 1):
                run = free[at : at + length]
                if run[-1] - run[0] + 1 != length:
                    continue
                words_key = self.query.key(run[0], run[-1] + 1)
                named = titles.get(_without_zeros(words_key))
                whole = length == len(free)
                is_stop = words_key in self.lexicon.stops and not whole
                is_tag = words_key in self.vocabulary.tags
                if named and not (is_stop or is_tag or self._negated(run[0])):
                    self._take_title(
                        named, run, [position for position in free if position not in run]
                    )
                    return

    def _take_title(self, named: list[NamedRow], run: list[int], others: list[int]) -> None:
        """Takes a title; of several versions the one that contains most of the other words."""
        keys = {self.query.tokens[position].key: position for position in others}
        matched = [keys.keys() & set(spoken_name(row["title"] or "").split()) for row in named]
        most = max(map(len, matched))
        rows = [row for row, words in zip(named, matched, strict=True) if len(words) == most]
        self.found.title = rows[0]["title"]
        self.found.title_tracks = tuple(row["track_id"] for row in rows)
        self._mark_taken(run[0], run[-1] + 1)
        self.found.taken |= {
            keys[word] for words in matched if len(words) == most for word in words
        }

    def _find_albums(self) -> None:
        """An album after its cue, else one before its cue."""
        found, tokens = self.found, self.query.tokens
        for position in range(len(tokens)):
            cue = None if position in found.taken else self._cue(position, ("album",))
            if cue is None or cue[0] >= len(tokens):
                continue
            for end in range(self.query.longest(cue[0]), cue[0], -1):
                if self._is_album(cue[0], end):
                    self._mark_taken(position, end)
                    return
        self._find_album_before_cue()

    def _find_album_before_cue(self) -> None:
        """An album whose cue follows it: "the Freedoom soundtrack"."""
        found, tokens = self.found, self.query.tokens
        first = next((p for p, t in enumerate(tokens) if t.key not in self.lexicon.stops), 0)
        for position in range(first + 1, len(tokens)):
            cue = self._cue(position, ("album_after",))
            if cue is not None and not found.taken & set(range(first, position)):
                if not self._is_tag(first, position) and self._is_album(first, position):
                    self._mark_taken(first, cue[0])
                return

    def _find_album_of_artist(self) -> None:
        """The album of a named artist whose name equals all the other words."""
        found = self.found
        free = [p for p in range(len(self.query.tokens)) if p not in found.taken]
        contiguous = bool(free) and free[-1] - free[0] + 1 == len(free)
        other_names = found.title or found.album or found.anchors
        if len(found.artists) != 1 or other_names or not contiguous:
            return
        key = name_key(self._words(free[0], free[-1] + 1))
        tracks = found.artists[0].tracks
        rows = self.table.rows(tracks, ["album"])
        on_album = tuple(t for t in tracks if key and name_key(rows[t]["album"]) == key)
        if on_album and key not in self.vocabulary.tags:
            found.album, found.album_tracks = rows[on_album[0]]["album"], on_album
            self._mark_taken(free[0], free[-1] + 1)

    def _is_album(self, start: int, end: int) -> bool:
        words = self._words(start, end)
        part = partial_name(
            words, tracks_with_words(words, self.vocabulary), self.query, self.vocabulary
        )
        if part is None or part.album is None:
            nearest = [track_id for track_id, _ in self.table.match_names(words, limit=NEAREST)]
            albums = self.table.rows(nearest, ["album"]).values()
            same = [r["album"] for r in albums if name_key(r["album"]) == name_key(words)]
            if not same:
                return False
            part = album_of(same[0], self.vocabulary)
        self.found.album, self.found.album_tracks = part.album, part.tracks
        return True


def _without_zeros(title: str | None) -> str:
    """The key of a title, with "07" written as "7"."""
    return re.sub(r"0+(?=\d)", "", name_key(title) or "")
