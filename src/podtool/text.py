"""English text as it is spoken: numbers into words for the aligner, and the normaliser behind WER.

`normalise` is what every word error figure of podtool is computed on; its rules are listed there.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_CURRENCY = {
    "$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", ""),
}  # fmt: skip
_TITLES = {
    "mr": "mister", "mrs": "missus", "messrs": "messieurs", "dr": "doctor", "prof": "professor",
    "st": "saint", "capt": "captain", "col": "colonel", "gen": "general", "lt": "lieutenant",
    "rev": "reverend", "hon": "honorable", "jr": "junior", "sr": "senior", "sgt": "sergeant",
    "esq": "esquire", "etc": "et cetera", "vs": "versus", "no.": "number",
}  # fmt: skip
_SYMBOLS = {"&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees"}
_SCALE_WORDS = frozenset({"hundred", "thousand", "million", "billion", "trillion"})
_NUMBER = re.compile(
    r"(?P<currency>[$£€¥])?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<fraction>\.\d+)?"
    r"(?P<suffix>st|nd|rd|th|s)?(?![a-z\d])",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b(\d{1,2}):([0-5]\d)\b")
_CURRENCY_SCALE = re.compile(
    r"([$£€¥])(\d[\d,]*(?:\.\d+)?)[ -](hundred|thousand|million|billion|trillion)\b", re.IGNORECASE
)


def cardinal(number: int) -> str:
    """The English cardinal of a number, without "and": 342 is "three hundred forty two"."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" {cardinal(rest)}" if rest else "")
    for size, name in _SCALES:
        if number >= size:
            if number >= size * 1000:  # beyond the named scales: read the digits
                return " ".join(_ONES[int(digit)] for digit in str(number))
            many, rest = divmod(number, size)
            return f"{cardinal(many)} {name}" + (f" {cardinal(rest)}" if rest else "")
    raise AssertionError("unreachable")


def year(number: int) -> str:
    """A number read as a year: 1945 is "nineteen forty five", 1905 "nineteen oh five"."""
    high, low = divmod(number, 100)
    if number % 1000 < 10:  # 1000, 2000 .. 2009
        return cardinal(number)
    if low == 0:
        return f"{cardinal(high)} hundred"
    return f"{cardinal(high)} {'oh ' if low < 10 else ''}{cardinal(low)}"


def ordinal(number: int) -> str:
    """The English ordinal of a number: 21 is "twenty first"."""
    *head, last = cardinal(number).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return " ".join([*head, last])


def _plural(words: str) -> str:
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words[-1] == "x" else "s")


def _read_number(match: re.Match[str]) -> str:
    whole_text = match["whole"]
    whole, suffix, fraction = int(whole_text.replace(",", "")), match["suffix"], match["fraction"]
    suffix = suffix.lower() if suffix else ""
    if match["currency"]:
        return f" {_read_money(match['currency'], whole, fraction)} "
    as_year = len(whole_text) == 4 and 1100 <= whole <= 2099 and not fraction
    if suffix in ("st", "nd", "rd", "th"):
        return f" {ordinal(whole)} "
    if len(whole_text) > 1 and whole_text.startswith("0"):  # 007: digit by digit
        words = " ".join(_ONES[int(digit)] for digit in whole_text)
    else:
        words = year(whole) if as_year else cardinal(whole)
    if suffix == "s":
        words = _plural(words)
    if fraction:
        words += " point " + " ".join(_ONES[int(digit)] for digit in fraction[1:])
    return f" {words} "


def _read_money(sign: str, whole: int, fraction: str | None) -> str:
    unit, part = _CURRENCY[sign]
    words = f"{cardinal(whole)} {unit}" + ("s" if whole != 1 and unit != "yen" else "")
    if not fraction or not part:
        return words
    if len(fraction) != 3:  # 2.5 million and the like are read as a decimal
        digits = " ".join(_ONES[int(digit)] for digit in fraction[1:])
        return f"{cardinal(whole)} point {digits} {unit}s"
    small = int(fraction[1:])
    if not small:
        return words
    parts = {"cent": "cents", "penny": "pence"}[part] if small != 1 else part
    return (f"{words} and " if whole else "") + f"{cardinal(small)} {parts}"


def _read_clock(match: re.Match[str]) -> str:
    hours, minutes = int(match[1]), int(match[2])
    if not minutes:
        return f" {cardinal(hours)} o'clock "
    return f" {cardinal(hours)} {'oh ' if minutes < 10 else ''}{cardinal(minutes)} "


def spell_out(text: str) -> str:
    """Replace digits, currency, percentages, clock times and symbols by the words one says.

    Case and punctuation of everything else stay as they are.
    """
    if text.isascii() and text.replace(" ", "").isalpha():
        return text
    text = _CURRENCY_SCALE.sub(
        lambda m: f" {m[2]} {m[3]} {_CURRENCY[m[1]][0]}{'' if m[1] == '¥' else 's'} ", text
    )
    text = _CLOCK.sub(_read_clock, text)
    text = re.sub(r"(?<=\d)-(?=\d)", " ", text)
    text = _NUMBER.sub(_read_number, text)
    text = re.sub(r"\d", lambda m: f" {_ONES[int(m[0])]} ", text)  # digits inside codes: B2B
    for symbol, word in _SYMBOLS.items():
        text = text.replace(symbol, f" {word} ")
    return re.sub(r"\s+", " ", text).strip()


def spoken_words(token: str) -> list[str]:
    """The lower-case dictionary words that one written token is said as: "$5" is five, dollars.

    Letters and inner apostrophes only; an empty list for punctuation alone.
    """
    text = _plain(token).lower()
    words: list[str] = []
    for word in re.split(r"[^a-z']+", spell_out(text)):
        word = word.strip("'")
        if word:
            words += _TITLES[word].split() if word in _TITLES else [word]
    return words


def is_title(token: str) -> bool:
    """Whether a written token is an abbreviation that ends in a full stop: Mr., Dr., St."""
    return token.lower().endswith(".") and token.lower()[:-1] in _TITLES


def _plain(text: str) -> str:
    """Straight apostrophes, no diacritics, compatibility forms resolved."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("`", "'")
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


_CONTRACTIONS = (
    (r"\bwon't\b", "will not"),
    (r"\bcan't\b", "can not"),
    (r"\bcannot\b", "can not"),
    (r"\bshan't\b", "shall not"),
    (r"\blet's\b", "let us"),
    (r"\bain't\b", "aint"),
    (r"\bma'am\b", "madam"),
    (r"\b'?tis\b", "it is"),
    (r"\b'?twas\b", "it was"),
    (r"\bgonna\b", "going to"),
    (r"\bwanna\b", "want to"),
    (r"\bgotta\b", "got to"),
    (r"n't\b", " not"),
    (r"'ll\b", " will"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'m\b", " am"),
    (r"'d\b", " would"),
    (r"\b(it|he|she|that|there|here|what|who|where|how)'s\b", r"\1 is"),
)
# Words that old and new spelling, or two writers, put together or apart: they sound the same.
_TOGETHER = (
    (r"\b(any|every|some|no) (one|body|thing|where)\b", r"\1\2"),
    (r"\b(to) (day|morrow|night)\b", r"\1\2"),
    (r"\b(for) (ever|evermore)\b", r"\1\2"),
    (r"\b(every|any) (day|more|way)\b", r"\1\2"),
    (r"\b(good) (bye|night)\b", r"\1\2"),
    (r"\b(mean) (while|time)\b", r"\1\2"),
)
_FILLERS = frozenset("hmm mm mhm mmm uh um er erm hm".split())

# British spelling into American: endings where every member of the family behaves the same, and
# single words. (The idea of Whisper's normaliser; the table here is our own.)
_OUR = (
    "arbour ardour armour behaviour candour clamour colour demeanour dishonour enamour endeavour "
    "favour favourite fervour flavour glamour harbour honour honourable humour labour misdemeanour "
    "neighbour neighbourhood odour parlour rancour rigour rumour saviour savour splendour succour "
    "tumour valour vapour vigour dolour colourless colouring harbinger"
).split()
_SPELLINGS = {
    "o": "oh", "grey": "gray", "greyish": "grayish", "plough": "plow", "centre": "center",
    "theatre": "theater", "metre": "meter", "litre": "liter", "fibre": "fiber",
    "sombre": "somber", "spectre": "specter",
    "lustre": "luster", "sabre": "saber", "sceptre": "scepter", "calibre": "caliber",
    "meagre": "meager", "manoeuvre": "maneuver", "defence": "defense", "offence": "offense",
    "pretence": "pretense", "licence": "license", "practise": "practice", "cheque": "check",
    "storey": "story", "tyre": "tire", "kerb": "curb", "mould": "mold", "moulder": "molder",
    "smoulder": "smolder", "jewellery": "jewelry", "sceptic": "skeptic", "sceptical": "skeptical",
    "programme": "program", "catalogue": "catalog", "dialogue": "dialog", "skilful": "skillful",
    "wilful": "willful", "fulfil": "fulfill", "enrol": "enroll", "instil": "instill",
    "marvellous": "marvelous", "woollen": "woolen", "traveller": "traveler", "counsellor":
    "counselor", "whisky": "whiskey", "waggon": "wagon", "gaol": "jail", "towards": "toward",
    "afterwards": "afterward", "okay": "ok", "alright": "all right", "draught": "draft",
    "axe": "ax", "connexion": "connection", "judgement": "judgment", "acknowledgement":
    "acknowledgment", "pyjamas": "pajamas", "aluminium": "aluminum", "cosy": "cozy",
    "sulphur": "sulfur", "mummy": "mommy", "mum": "mom", "pedlar": "peddler", "phantasy": "fantasy",
}  # fmt: skip
_DOUBLED = re.compile(
    r"^(travel|cancel|level|model|quarrel|marvel|signal|label|counsel|jewel"
    r"|equal|rival|shovel|swivel|tunnel|duel|fuel|dial|total)l(ed|ing|er|ers)$"
)
_ISE = re.compile(
    r"^(real|organ|recogn|apolog|civil|critic|character|emphas|fertil|general|harmon|memor|minim"
    r"|maxim|mobil|modern|neutral|patron|special|stabil|steril|summar|symbol|sympath|util|visual"
    r"|agon|author|bapt|brutal|capital|colon|crystall|econom|equal|familiar|final|formal|ideal"
    r"|immortal|jeopard|legal|monopol|normal|parall|penal|popular|publ?ic|rational|scrutin"
    r"|social|standard|subsid|tantal|terror|vapor|victim|western|jeopardi|natural|material"
    r"|centrali|central|hypnot|idol|moral|penal|polar|pulver|satir|synchron|theor|tranquill)"
    r"is(e|es|ed|ing|er|ers|ation|ations)$"
)


@lru_cache(maxsize=65536)
def _american(word: str) -> str:
    for candidate, tail in ((word, ""), (word[:-1], "s")):
        if (not tail or word.endswith("s")) and candidate in _SPELLINGS:
            return _SPELLINGS[candidate] + tail
    for stem in _OUR:
        if word.startswith(stem):
            return word.replace("our", "or", 1)
    if match := _DOUBLED.match(word):
        return match[1] + match[2]
    if match := _ISE.match(word):
        return f"{match[1]}iz{match[2]}"
    return word


def normalise(text: str) -> str:
    """Text as it is compared in WER, CER and cpWER: words joined by single spaces.

    In this order, on both sides alike: compatibility characters resolved and diacritics dropped;
    lower case; text in square or angle brackets removed ([laughter]); titles written out (Mr. is
    mister); digits, money, percentages and clock times into words, four digits from 1100 to 2099
    read as years; contractions and *cannot* opened (I'll, don't; pronoun + 's as "is"; 'd as
    "would"); hyphens and other punctuation into spaces, apostrophes dropped (a possessive's is
    not heard); "and" inside a number and hesitations (uh, um, hmm) dropped; British spelling into
    American, O as "oh"; a prefix re- joined (re-read), and a fixed list of words that are written
    apart or together (any one, to day, for ever) joined. Other compounds are left as they are.
    """
    text = _plain(text).lower()
    text = re.sub(r"\[[^\]]*\]|<[^>]*>", " ", text)
    text = spell_out(text)
    text = re.sub(r"\bre-(?=[a-z])", "re", text)
    for pattern, plain in _CONTRACTIONS:
        text = re.sub(pattern, plain, text)
    text = text.replace("'", "")
    words: list[str] = []
    for word in re.split(r"[^a-z0-9]+", text):
        if not word or word in _FILLERS:
            continue
        words += _TITLES[word].split() if word in _TITLES else [_american(word)]
    kept = [
        word
        for index, word in enumerate(words)
        if not (
            word == "and"
            and 0 < index < len(words) - 1
            and words[index - 1] in _SCALE_WORDS
            and words[index + 1] in _NUMBER_WORDS
        )
    ]
    joined = " ".join(kept)
    for pattern, together in _TOGETHER:
        joined = re.sub(pattern, together, joined)
    return joined


_NUMBER_WORDS = frozenset([*_ONES, *_TENS])


def spread_words(words: list[str], start: float, end: float) -> list[tuple[str, float, float]]:
    """(word, start, end), the time shared out by number of letters: times without an aligner."""
    weights = [2 + sum(c.isalnum() for c in word) for word in words]
    whole = sum(weights) or 1
    times: list[tuple[str, float, float]] = []
    at = 0
    for word, weight in zip(words, weights, strict=True):
        begin = start + (end - start) * at / whole
        at += weight
        times.append((word, begin, start + (end - start) * at / whole))
    return times
