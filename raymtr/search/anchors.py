"""Finds names in a query: anchors of "like ...", artists whose tracks are wanted, albums.

A name is searched for after a cue ("like", "by", "album"), longest match first. Without a cue, a
name is accepted only if its words are not tags or common words. After a cue a name may be misspelt.
An unknown name is reported, with the nearest known names.
"""

from __future__ import annotations

import re

from raymtr.index.track_rows import NamedRow
from raymtr.names import name_key, spoken_name
from raymtr.search.misspelt import album_of, bare_title, holding, name_in_part
from raymtr.search.name_lookup import NEAREST, NameLookup, NamesFound
from raymtr.search.named import (
    Known,
    Named,
    NameReading,
    artist_keys,
)
from raymtr.search.slots import Anchor, Exclude
from raymtr.search.transliterate import latin

MOST_ANCHORS = 5
KINDS = ("thesong", "thetrack", "thetune", "thepiece", "theartist", "theband", "song", "artist")
MIXES = ("between", "acrossbetween", "crossbetween", "somewherebetween", "halfwaybetween")


class NameFinder(NameLookup):
    """Finds all names of one query."""

    def find(self, known: Known) -> NamesFound:
        """All names in the query, given the catalog look-up `known` of `spans`."""
        self.known = known
        self._meeting()
        if not self.found.anchors:
            self._likenesses()
        self._albums()
        self._artists()
        self._titles()
        self._artists_album()
        return self.found

    def _likenesses(self) -> None:
        place, group = 0, 0
        while place < len(self.question.tokens):
            cue = None if place in self.found.taken else self._cue(place, ("unlike", "like"))
            if cue is None or place in self.in_facets:
                place += 1
                continue
            end, kind = cue
            positive = kind == "like" and not self._negated(place)
            start = self._past_kind(end)
            name = self._name_at(start) or self._misspelt_at(start, anchor=True)
            if name is None:
                if self._unknown_at(start, place):
                    return
                place = end
                continue
            last, named = name
            mixed = self.question.key(place, end) in MIXES or "mix" in self.question.key(place, end)
            self._take(place if positive or kind == "unlike" else place - 1, last)
            self._anchor(named, place, last, positive, group)
            last = self._more_names(last, positive, group, mixed)
            group += 1
            place = last
        self._likeness_behind()

    def _past_kind(self, start: int) -> int:
        """The token after "the song" or "the artist" before a name, unless that is in a name."""
        for end in (start + 2, start + 1):
            said = self.question.key(start, end)
            if said in KINDS and self._name_at(start) is None and self._name_at(end):
                return end
        return start

    def _more_names(self, last: int, positive: bool, group: int, mixed: bool) -> int:
        """Further names of a list after "and" or "meets": "like X and Y", "a mix of X and Y"."""
        while last < len(self.question.tokens) and len(self.found.anchors) < MOST_ANCHORS:
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
            self._anchor(named, joint, end, positive, group)
            self._take(last, end)
            last = end
        return last

    def _likeness_behind(self) -> None:
        """Likeness cues that follow the name, as in Japanese "Xみたいな"."""
        for start, end in sorted(self.places, key=lambda span: span[0] - span[1]):
            if end >= len(self.question.tokens) or self.found.taken & set(range(start, end)):
                continue
            cue = self._cue(end, ("like_after",))
            named = self._named(start, end) if cue else None
            if cue is not None and named is not None and named.artist is not None:
                self._take(start, cue[0])
                self._anchor(named, start, end, True, len(self.found.anchors))

    def _meeting(self) -> None:
        """The form "X meets Y" without a preceding cue."""
        tokens = self.question.tokens
        for place in range(1, len(tokens) - 1):
            if tokens[place].key not in self.lexicon.cues["meets"]:
                continue
            before = next(
                ((s, n) for s in range(max(0, place - 6), place) if (n := self._named(s, place))),
                None,
            )
            after = self._name_at(place + 1)
            if before is None or after is None:
                continue
            start = before[0]
            if start and (cue := self._cue(start - 1, ("like",))) and cue[0] == start:
                start -= 1
            self._take(start, after[0])
            self._anchor(before[1], before[0], place, True, 0)
            self._anchor(after[1], place + 1, after[0], True, 0)
            return

    def _artists(self) -> None:
        """Artists whose own tracks are wanted."""
        found, tokens = self.found, self.question.tokens
        for place in range(len(tokens)):
            cue = None if place in found.taken else self._cue(place, ("by",))
            if cue is None:
                continue
            end = cue[0]
            name = self._artist_at(end)
            key = self.question.key(place, cue[0])
            if name is None and key == "by":
                name = self._misspelt_at(end, anchor=False)
                if name is None and not found.anchors and self._unknown_at(end, place):
                    return
            if name is not None:
                self._artist(name[1], place, name[0])
                self._take(place, name[0])
                found.says_by |= key == "by"
        taken = set(found.taken)
        for start, end in sorted(self.places, key=lambda span: span[0] - span[1]):
            if found.taken & set(range(start, end)) or not self._may_stand_alone(start, end):
                continue
            named = self.known.named(NameReading(None, self._words(start, end)))
            if named is not None and len(found.artists) < MOST_ANCHORS:
                self._artist(named, start, end)
                self._take(start, end)
        if found.artists or taken:
            return
        self._misspelt_alone()

    def _misspelt_alone(self) -> None:
        """A misspelt name without a cue, next to tags: "celtic jahzar"."""
        tokens, lexicon = self.question.tokens, self.lexicon
        strange = [
            place
            for place, token in enumerate(tokens)
            if not lexicon.concept(token.key)
            and token.key not in lexicon.everyday
            and token.key not in lexicon.stops
            and token.key not in self.vocabulary.tags
            and self.vocabulary.speller.nearest(token.key) is None
            and len(token.key) > 3
        ]
        if not strange or len(strange) == len(tokens):
            return
        start, end = strange[0], strange[-1] + 1
        named = self._spelt_like(start, end, anchor=False)
        if named is not None:
            self._correct(named, start, end)
            self._artist(named, start, end)
            self._take(start, end)

    def _artist(self, named: Named, start: int, end: int) -> None:
        words = self.question.words(start, end)
        if self._negated(start):
            cue = start - 1
            self._take(cue, end)
            said = self.question.words(cue, end)
            slot = Exclude(term=named.artist or words, words=said, artist=named.artist)
            self.found.excluded.append(slot)
            return
        anchor = Anchor(words=words, artist=named.artist, tracks=named.tracks)
        if all(named.artist != other.artist for other in self.found.artists):
            self.found.artists = (*self.found.artists, anchor)

    def _titles(self) -> None:
        """Tracks of the named artist whose title the other words match, ignoring leading zeros."""
        found, tokens = self.found, self.question.tokens
        if len(found.artists) != 1 or found.anchors:
            return
        key = name_key(found.artists[0].artist)
        rows = [row for row in self.known.rows if key in artist_keys(row)]
        titles: dict[str, list[NamedRow]] = {}
        for row in rows:
            latin_form = name_key(latin(row["title"] or "") or "") or ""
            for form in {_without_zeros(row["title"]), bare_title(row["title"]), latin_form}:
                titles.setdefault(form, []).append(row)
        free = [place for place in range(len(tokens)) if place not in found.taken]
        for length in range(len(free), 0, -1):
            for at in range(len(free) - length + 1):
                run = free[at : at + length]
                if run[-1] - run[0] + 1 != length:
                    continue
                said = self.question.key(run[0], run[-1] + 1)
                named = titles.get(_without_zeros(said))
                whole = length == len(free)
                plain = said in self.lexicon.stops and not whole
                is_tag = said in self.vocabulary.tags
                if named and not (plain or is_tag or self._negated(run[0])):
                    self._title(named, run, [place for place in free if place not in run])
                    return

    def _title(self, named: list[NamedRow], run: list[int], others: list[int]) -> None:
        """Takes a title; of several versions the one that also holds the other words."""
        keys = {self.question.tokens[place].key: place for place in others}
        held = [keys.keys() & set(spoken_name(row["title"] or "").split()) for row in named]
        most = max(map(len, held))
        rows = [row for row, words in zip(named, held, strict=True) if len(words) == most]
        self.found.title = rows[0]["title"]
        self.found.title_tracks = tuple(row["track_id"] for row in rows)
        self._take(run[0], run[-1] + 1)
        self.found.taken |= {keys[word] for words in held if len(words) == most for word in words}

    def _albums(self) -> None:
        """An album after its cue, or one named by the words that no other slot took."""
        found, tokens = self.found, self.question.tokens
        for place in range(len(tokens)):
            cue = None if place in found.taken else self._cue(place, ("album",))
            if cue is None or cue[0] >= len(tokens):
                continue
            for end in range(self.question.longest(cue[0]), cue[0], -1):
                if self._is_album(cue[0], end):
                    self._take(place, end)
                    return
        self._album_before()

    def _album_before(self) -> None:
        """An album whose cue follows it: "the Freedoom soundtrack"."""
        found, tokens = self.found, self.question.tokens
        first = next((p for p, t in enumerate(tokens) if t.key not in self.lexicon.stops), 0)
        for place in range(first + 1, len(tokens)):
            cue = self._cue(place, ("album_after",))
            if cue is not None and not found.taken & set(range(first, place)):
                if not self._only_tags(first, place) and self._is_album(first, place):
                    self._take(first, cue[0])
                return

    def _artists_album(self) -> None:
        """The album of a named artist that all the other words name."""
        found = self.found
        free = [place for place in range(len(self.question.tokens)) if place not in found.taken]
        run = bool(free) and free[-1] - free[0] + 1 == len(free)
        if len(found.artists) != 1 or found.title or found.album or found.anchors or not run:
            return
        key = name_key(self._words(free[0], free[-1] + 1))
        tracks = found.artists[0].tracks
        rows = self.table.rows(tracks, ["album"])
        on_album = tuple(t for t in tracks if key and name_key(rows[t]["album"]) == key)
        if on_album and key not in self.vocabulary.tags:
            found.album, found.album_tracks = rows[on_album[0]]["album"], on_album
            self._take(free[0], free[-1] + 1)

    def _is_album(self, start: int, end: int) -> bool:
        words = self._words(start, end)
        part = name_in_part(words, holding(words, self.vocabulary), self.question, self.vocabulary)
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
