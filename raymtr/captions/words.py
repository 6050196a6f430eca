"""Word lists on music and English, for templates and for judging captions.

Both use the same lists, so a word has the same part in writing and in judging.
"""

# Adjectives, placed before the kind of music.
QUALITY_WORDS = """
acoustic aggressive angry atmospheric beautiful bright calm catchy cheerful chill cold cool dark
deep dense downtempo dramatic dreamy dynamic eerie emotional energetic epic exciting fast fun
gentle gloomy groovy happy hard heavy hopeful hypnotic intense intimate legato light live lively
lo-fi loud low meditative medium melancholic melancholy mellow melodic mid-tempo minimal modern
moody mysterious nostalgic peaceful playful powerful quiet raw relaxed relaxing repetitive
rhythmic romantic sad sentimental serious slow smooth soft soothing sparse staccato sweet tense
traditional upbeat uplifting uptempo warm weird
"""
# Last words of phrases for sounds: instruments, voices, effects.
SOUND_WORDS = """
accordion arpeggio bagpipe banjo bass bassline beat bell bongo box brass cello chant chimes choir
chord clap clarinet conga cymbal drum echo effect fiddle flute guitar harmonica harmony harp
harpsichord horn kalimba keyboard lead lute machine mandolin marimba melody noise note oboe
orchestra organ pad percussion piano recorder reverb rhythm riff run sample sax saxophone scream
singer singing sitar solo steelpan string synth synthesizer tabla tambourine theremin trill
trombone trumpet tuba ukulele vibraphone viola violin vocal vocalist voice whistle xylophone
"""
QUALITIES, SOUNDS = frozenset(QUALITY_WORDS.split()), frozenset(SOUND_WORDS.split())

KIND_WORDS = """
ambient anthem bachata ballad baroque bebop bhangra bluegrass blues bolero bossa breakbeat celtic
chillout chiptune classical country cumbia dance dancehall disco downbeat drill drone dub dubstep
edm electro electronic electronica emo experimental flamenco folk funk fusion garage gospel grime
grunge hardcore hardstyle house hymn idm indie industrial instrumental jazz jig jungle klezmer
latin lo-fi lullaby march mariachi medieval merengue metal minimalist minuet motown musette
neoclassical new-age opera orchestral phonk polka pop punk ragtime rap rave reel reggae reggaeton
renaissance rnb rock rockabilly rumba salsa samba shoegaze ska soul soundtrack swing symphony
synthpop synthwave tango techno trance trap trip-hop vaporwave waltz
"""
PHRASES = (
    *("hip hop", "r&b", "drum and bass", "new wave", "big band", "heavy metal", "bossa nova"),
    *("acid jazz", "soft rock", "hard rock", "drum machine", "a cappella", "call and response"),
    *("female", "male", "duet", "rapping", "rapper", "humming", "yodeling", "falsetto", "autotune"),
    *("major key", "minor key", "4/4", "3/4", "6/8", "distorted", "syncopated", "improvised"),
)
# Not musical terms by themselves: what all music has or is, and heads of compounds (a drum
# *machine*).
GENERIC_WORDS = """
accompaniment album artist atmosphere audio background band box clip composition effect energy genre
instrument instrumentation lead listener machine masterpiece material melody mood music musical
musician note number part performance performer piece play player playing quality recording rhythm
run sample section showcase song sound style tempo theme title track tune type unique work world
"""
FUNCTION_WORDS = """
a about above again all also an and any are as at be been being both but by can could do does each
few for from had has have he her here him his how i if in into is it its just let like many may me
more most much my no not of off on one only or other our out over own same she so some such than
that the their them then there these they this those through to too two under up us very was we
well were what when where which while who will with would yes you your
"""
GENERIC, SMALL_WORDS = frozenset(GENERIC_WORDS.split()), frozenset(FUNCTION_WORDS.split())
