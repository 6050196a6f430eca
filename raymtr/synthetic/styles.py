"""The styles of the synthetic catalog, written as rhythm strings.

A rhythm is a string with one character per step, so a new style is one entry and no code. The
trade-off is a fixed grid of sixteenths: what does not fit on it (trills, runs) comes from the
phrasing instead.

`x` starts a note, `X` an accented one, `o` a soft one, `-` holds it, `.` is silence. In `bass`
the starting letter names the note: r root, t third, f fifth, s sixth, o octave, a the step that
leads to the next bar's root. In `chords`, digits 1 to 4 pick single chord tones, lowest first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Style:
    """One bar of each part. Strings have one character per step."""

    beats: int = 4
    tempi: tuple[str, ...] = ("slow", "mid-tempo", "fast")
    modes: tuple[str, ...] = ("major", "minor")
    percussion: tuple[str, ...] = ("drums", "hand percussion", "drum machine")
    progressions: tuple[str, ...]  # the scale degree of each bar
    melodies: tuple[str, ...]
    chords: str
    bass: str
    kick: str
    snare: str
    hat: str
    bass_program: int = 33
    swing: float = 0.5  # position in the beat at which its second half begins
    sevenths: str = ""  # "", "diatonic" or "dominant"

    @property
    def steps(self) -> int:
        """Steps in one bar."""
        return len(self.chords)


STYLES = {
    "ambient": Style(
        tempi=("slow", "mid-tempo"),
        modes=("major", "minor", "dorian"),
        percussion=("hand percussion",),
        progressions=("1414", "1615"),
        melodies=("x---------------", "........x-------"),
        chords="x---------------",
        bass="r---------------",
        kick="o...............",
        snare="............o...",
        hat="........o.......",
        bass_program=39,
        sevenths="diatonic",
    ),
    "ballad": Style(
        tempi=("slow", "mid-tempo"),
        progressions=("1645", "1564", "1345"),
        melodies=("x-------x---x---", "x-----x-x-------"),
        chords="1-2-3-4-3-2-3-2-",
        bass="r-------f-------",
        kick="X.........x.....",
        snare="........X.......",
        hat="x...x...x...x...",
    ),
    "baroque": Style(
        percussion=("drums", "hand percussion"),
        progressions=("1425", "1451", "1625"),
        melodies=("xxxxx-x-xxxxx-x-", "x-xxx-xxx-xxx-xx"),
        chords="x-..x-..x-..x-..",
        bass="r-t-f-t-r-f-t-a-",
        kick="x.......x.......",
        snare="....o.......o.o.",
        hat="................",
        bass_program=43,
    ),
    "blues": Style(
        modes=("major", "minor", "dorian"),
        percussion=("drums", "hand percussion"),
        progressions=("1411", "1415"),
        melodies=("..x-x-x---......", "x-x---x-....x-x-"),
        chords="x.x.x.x.x.x.x.x.",
        bass="r-r-t-t-f-f-s-s-",
        kick="X...x...X...x...",
        snare="....X.......X...",
        hat="x.x.x.x.x.x.x.x.",
        bass_program=32,
        swing=0.667,
        sevenths="dominant",
    ),
    "bossa nova": Style(
        progressions=("1625", "1425"),
        melodies=("x--x--x---x-x---", "..x--x--x-------"),
        chords="x--x--x---x--x--",
        bass="r-----f-f-----r-",
        kick="x..xx..xx..xx..x",
        snare="x..x..x...x..x..",
        hat="o.x.o.x.o.x.o.x.",
        bass_program=32,
        sevenths="diatonic",
    ),
    "funk": Style(
        tempi=("mid-tempo", "fast"),
        modes=("minor", "dorian"),
        percussion=("drums", "drum machine"),
        progressions=("1111", "1414"),
        melodies=("x.xx..x.x..x....", "..x.x..x..x.x..x"),
        chords="...x..x....x..x.",
        bass="r..r..o.r..f..oo",
        kick="X..x..x...x..x..",
        snare="....X..o.o..X..o",
        hat="xxxxxxxxxxxxxxxx",
        bass_program=36,
        sevenths="dominant",
    ),
    "hip hop": Style(
        tempi=("slow", "mid-tempo"),
        modes=("minor", "dorian"),
        percussion=("drum machine", "drums"),
        progressions=("1161", "1464"),
        melodies=("x-x-....x---....", "..x-..x-x-......"),
        chords="x-----..........",
        bass="r-----..r-..f---",
        kick="X......x..x.....",
        snare="....X.......X...",
        hat="x.x.x.xxx.x.x.x.",
        bass_program=38,
        swing=0.56,
        sevenths="diatonic",
    ),
    "house": Style(
        tempi=("mid-tempo", "fast"),
        percussion=("drum machine", "drums"),
        progressions=("6451", "1564"),
        melodies=("x--x--x---x-x---", "x-x-x-x-..x-x-x-"),
        chords="x..x..x...x.x...",
        bass="..r-..r-..r-..o-",
        kick="X...X...X...X...",
        snare="....X.......X...",
        hat="..X...X...X...X.",
        bass_program=38,
        sevenths="diatonic",
    ),
    "jig": Style(
        beats=2,
        tempi=("mid-tempo", "fast"),
        modes=("major", "dorian"),
        percussion=("hand percussion", "drums"),
        progressions=("1145", "1514", "1415"),
        melodies=("x-x-x-x-x-x-", "x---x-x-x-x-", "x-x-x-x---x-"),
        chords="....x-....x-",
        bass="r---..f---..",
        kick="X.....x.....",
        snare="..o.x...o.x.",
        hat="x.x.x.x.x.x.",
    ),
    "march": Style(
        percussion=("drums",),
        progressions=("1115", "1451"),
        melodies=("x--xx---x--xx---", "x---x--xx---x---"),
        chords="....x-......x-..",
        bass="r-......f-......",
        kick="X.......X.......",
        snare="x.xxx.x.x.xxx.xx",
        hat="....x.......x...",
        bass_program=58,
    ),
    "reggae": Style(
        tempi=("slow", "mid-tempo"),
        progressions=("1414", "1451"),
        melodies=("..x-x---..x-x---", "x---..x-x-x-...."),
        chords="..x...x...x...x.",
        bass="r---..t-f-..r---",
        kick="........X.......",
        snare="........X.......",
        hat="x.x.x.x.x.x.x.x.",
        swing=0.6,
    ),
    "rock": Style(
        percussion=("drums",),
        progressions=("1564", "1456"),
        melodies=("x---x-x-x---x---", "x-x-x---x-x-----"),
        chords="x-x-x-x-x-x-x-x-",
        bass="r-r-r-r-r-r-r-r-",
        kick="X.....x.X.x.....",
        snare="....X.......X...",
        hat="x.x.x.x.x.x.x.x.",
        bass_program=34,
    ),
    "swing": Style(
        percussion=("drums",),
        progressions=("2511", "1625"),
        melodies=("x-x-x---x-x-....", "..x-x-x-x---x---"),
        chords="x-....x-........",
        bass="r---t---f---a---",
        kick="o...o...o...o...",
        snare="....x.......x...",
        hat="X...x.x.X...x.x.",
        bass_program=32,
        swing=0.667,
        sevenths="diatonic",
    ),
    "tango": Style(
        modes=("minor",),
        percussion=("hand percussion", "drums"),
        progressions=("1451", "1515"),
        melodies=("x--xx-x-x-------", "x-xxx-x-x---x---"),
        chords="X...x...x...x.x.",
        bass="r--rf-r-r--rf-r-",
        kick="X...x...X...x.x.",
        snare="......xx......xx",
        hat="................",
        bass_program=32,
    ),
    "techno": Style(
        tempi=("mid-tempo", "fast"),
        modes=("minor", "dorian"),
        percussion=("drum machine",),
        progressions=("1111", "1161"),
        melodies=("x.x..x.x..x.x.x.", "x..x..x.x..x..x."),
        chords="...x..x....x..x.",
        bass="..rr..rr..rr..ro",
        kick="X...X...X...X...",
        snare="....x.......x..x",
        hat="x.Xxx.Xxx.Xxx.Xx",
        bass_program=38,
    ),
    "waltz": Style(
        beats=3,
        percussion=("drums", "hand percussion"),
        progressions=("1451", "1625", "1415"),
        melodies=("x-------x---", "x---x---x---", "x-----x-x-x-"),
        chords="....x-..x-..",
        bass="r-------....",
        kick="X...........",
        snare="....o...o...",
        hat="....x...x...",
    ),
}
