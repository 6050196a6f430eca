"""Patterns of the words around the numbers of a facet, in the languages of the lexicon."""

YEAR = r"(1[89]\d\d|20[0-4]\d)"
UNDER = (
    r"(?:under|less than|shorter than|below|up to|at most|no longer than|not longer than"
    r"|no more than|not more than|max(?:imum)?(?: of)?|within|slower than|lower than|not over"
    r"|unter|weniger als|kürzer als|höchstens|maximal|moins de|menos de|meno di|máximo|менее"
    r"|короче|до|<=?)"
)
OVER = (
    r"(?:over|more than|longer than|above|at least|min(?:imum)?(?: of)?|faster than|higher than"
    r"|no less than|not less than|not under|über|länger als|mehr als|mindestens|plus de|más de"
    r"|mais de|più di|oltre|более|длиннее|>=?)"
)
ABOUT = r"(?:around|about|approximately|roughly|circa|ca\.?|exactly|etwa|environ|~|at|of|a|an)"
BETWEEN = r"(?:between|from|zwischen|von|entre|de|tra|от)"
AND = r"(?:\s*(?:and|to|-|–|und|bis|et|à|y|a|e|до)\s*)"
BEFORE = (
    r"(?:before|prior to|until|up to|older than|earlier than|pre-?|vor|bis|avant|antes del?"
    r"|antes do|antes de|prima del|до)"
)
AFTER = (
    r"(?:after|since|newer than|later than|post-?|nach|seit|ab|depuis|après|después del?|desde"
    r"|depois de|dopo il|dal|после|from)"
)
MINUTE = r"(?:minuten|minutes?|mins?\b|min\b|minutos?|minuti|минут\w*|мин\b|分)"
SECOND = r"(?:secondes?|seconds?|secs?\b|sekunden?|segundos?|secondi|секунд\w*|сек\b|秒)"
HOUR = r"(?:hours?|stunden?|heures?|horas?|ore\b|часа?|時間)"
MORE, LESS = r"(?:more|longer|mehr|länger)", r"(?:less|shorter|weniger|kürzer)"
THING = r"(?:songs?|tracks?|pieces?|tunes?|jingles?|compositions?|numbers?)"
