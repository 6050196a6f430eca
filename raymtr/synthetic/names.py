"""Invents names of artists, titles and albums.

They have accents, apostrophes, other scripts and a slash, because real names do. They share no word
with any tag, so that a title says nothing about the sound. No pair of words is used twice, so that
a search for a title has one right answer.
"""

from __future__ import annotations

import numpy as np

FIRST_NAMES = (
    "Ada Alasdair Amara Anaïs Björk Bronisław Camila Chinedu Dagný Eilidh Émile Farid Fionnuala "
    "Goran Hanneke Ingrid Ibrahim Jürgen Kaito Leïla Lorcan Marguerite Mirela Naoko Nikolai "
    "Oumou Paloma Quentin Rasmus Rosalind Søren Sunniva Tadeusz Thandiwe Ulrike Vashti "
    "Wendell Xochitl Yusuf Zoë"
)
LAST_NAMES = (
    "Abernathy Bakke Castellanos D'Aubigny Dvořáček Eriksen Fairweather Galić Hollander "
    "Ibáñez Jørgensen Kowalczyk Lindqvist Mbeki Nakagawa O'Dwyer Pemberton Quiñones Rautio "
    "Sandoval Thibodeaux Underhill Vasilenko Whitlock Ximenes Yıldız Zamora Øverby"
)
ODD_ARTISTS = (
    "Северное Окно",
    "夜明けの灯台",
    "Les Météores d'Août",
    "The Tin Lanterns",
    "Café Próspero",
    "Ten Thousand Umbrellas",
    "Mother O'Malley's Kettle",
    "Señor Nadie & the Weather",
    "Die Müßiggänger",
    "Paper Moth Society",
)
FIRST_WORDS = (
    "Amber Ancient Arctic Bitter Borrowed Broken Burning Copper Crooked Distant Drifting Dusty "
    "Early Elegant Empty Faded Foreign Forgotten Frozen Gentle Gilded Hidden Hollow Honest "
    "Hungry Idle Invisible Ivory Lazy Lonely Lucky Midnight Mirrored Northern Patient Quiet "
    "Restless Rusted Salted Scarlet Second Secret Silver Sleeping Stolen Tangled Unwritten "
    "Velvet Wandering Wooden"
)
SECOND_WORDS = (
    "Almanac Archipelago Atlas Attic Avenue Balcony Bicycle Bonfire Boulevard Bridge Calendar "
    "Carousel Cathedral Chandelier Compass Corridor Dictionary Elevator Envelope Ferry Garden "
    "Glacier Harbour Horizon Island Jacaranda Kingdom Labyrinth Lantern Lemonade Lighthouse "
    "Magpie Meadow Mirror Monsoon Mountain Nightingale Orchard Parade Passport Pelican Photograph "
    "Postcard Rainfall Reservoir River Satellite Saturday Shoreline Snowfall Staircase Station "
    "Suitcase Telegram Thunder Umbrella Valley Window Winter Zeppelin"
)
TITLE_SHAPES = ("{} {}", "The {} {}", "My {} {}", "Beyond the {} {}", "No {} {}", "{} {} Again")
ODD_TITLES = (
    "Été sans fin",
    "Белая птица",
    "夜の橋",
    "¿Dónde está mi sombra?",
    "Don't Wake the Neighbours",
    "Übermorgen",
    "Smørrebrød Skies",
    "Ça va, ça vient",
    "AC/DC Adapter",
    "What If...?",
    "Łódź 03:15",
    "Ὀδύσσεια",
)
ALBUM_WORDS = (
    "Anatomy Arrivals Blueprints Conversations Departures Diaries Excuses Experiments Fragments "
    "Ghosts Habits Inventions Letters Memories Portraits Questions Rumours Seasons Shadows "
    "Souvenirs Stories Superstitions Theories Voyages"
)
ALBUM_PLACES = (
    "Ålesund Bergamo Cádiz Dakar Essaouira Fukuoka Gdańsk Halifax Izmir Jaipur Kraków Lima "
    "Málaga Nairobi Oaxaca Porto Québec Reykjavík Sapporo Tromsø Utrecht Valparaíso Wellington "
    "Zürich"
)


def invent_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` distinct names of artists."""
    pairs = [f"{first} {last}" for first in FIRST_NAMES.split() for last in LAST_NAMES.split()]
    odd = list(ODD_ARTISTS[: count // 5])
    plain = [pairs[i] for i in rng.permutation(len(pairs))[: count - len(odd)]]
    return [(odd + plain)[i] for i in rng.permutation(count)]


def invent_titles(count: int, rng: np.random.Generator) -> list[str]:
    """`count` distinct titles; no pair of words is used twice."""
    pairs = [(first, second) for first in FIRST_WORDS.split() for second in SECOND_WORDS.split()]
    titles = list(ODD_TITLES[: count // 8])
    order = rng.permutation(len(pairs))
    for number in range(count - len(titles)):
        lap, place = divmod(number, len(pairs))
        title = str(rng.choice(TITLE_SHAPES)).format(*pairs[order[place]])
        titles.append(title if lap == 0 else f"{title}, Part {lap + 1}")
    return [titles[i] for i in rng.permutation(count)]


def invent_albums(tracks: int, first_year: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """(album, year) of each track of an artist: about four tracks per album, years apart."""
    count = max(1, round(tracks / 4))
    words = rng.permutation(ALBUM_WORDS.split())[:count]
    places = rng.permutation(ALBUM_PLACES.split())[:count]
    records = [
        (f"{word} from {place}", first_year + 3 * number)
        for number, (word, place) in enumerate(zip(words, places, strict=True))
    ]
    return [records[track * count // tracks] for track in range(tracks)]
