"""A pronunciation for words that the dictionary lacks: greedy letter-to-sound rules into ARPABET.

Good enough to align a name, not to teach anyone to say it: the longest spelling that matches wins
(the plan of Elovitz et al. 1976, with a far smaller table).
"""

from __future__ import annotations

_RULES = {
    "tion": "SH AH N", "sion": "ZH AH N", "cious": "SH AH S", "tious": "SH AH S", "ough": "AO",
    "augh": "AO", "eigh": "EY", "igh": "AY", "tch": "CH", "dge": "JH", "sch": "SH", "chr": "K R",
    "que": "K", "ous": "AH S", "air": "EH R", "are": "EH R", "ear": "IH R", "eer": "IH R",
    "our": "AW ER", "oor": "AO R", "ore": "AO R", "ure": "Y UH R", "ire": "AY ER", "ing": "IH NG",
    "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "gh": "G", "kn": "N", "wr": "R",
    "ck": "K", "ng": "NG", "nk": "NG K", "qu": "K W", "gn": "N", "mb": "M", "ps": "P S",
    "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oi": "OY", "oy": "OY",
    "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ei": "IY", "ey": "IY", "ie": "IY",
    "oa": "OW", "oe": "OW", "ue": "UW", "ui": "UW", "eu": "UW", "ew": "UW", "ia": "IY AH",
    "io": "IY OW", "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R", "ur": "ER", "ce": "S",
    "ci": "S IH", "cy": "S IY", "ge": "JH", "gi": "JH IH", "x": "K S",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH",
    "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "OW", "p": "P", "q": "K", "r": "R",
    "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "y": "IY", "z": "Z",
}  # fmt: skip
_LETTERS = {
    "a": "EY", "b": "B IY", "c": "S IY", "d": "D IY", "e": "IY", "f": "EH F", "g": "JH IY",
    "h": "EY CH", "i": "AY", "j": "JH EY", "k": "K EY", "l": "EH L", "m": "EH M", "n": "EH N",
    "o": "OW", "p": "P IY", "q": "K Y UW", "r": "AA R", "s": "EH S", "t": "T IY", "u": "Y UW",
    "v": "V IY", "w": "D AH B AH L Y UW", "x": "EH K S", "y": "W AY", "z": "Z IY",
}  # fmt: skip
_LONGEST = max(len(spelling) for spelling in _RULES)
_LONG_VOWELS = {"a": "EY", "e": "IY", "i": "AY", "o": "OW", "u": "UW", "y": "AY"}


def spelled(word: str) -> str:
    """The names of the letters: "fbi" is EH F B IY AY."""
    return " ".join(_LETTERS[c] for c in word if c in _LETTERS)


def pronounce(word: str) -> str:
    """ARPABET phones, space-separated, for a lower-case word; "" where it holds no letter a-z."""
    letters = "".join(c for c in word.lower() if c in _LETTERS)
    if not letters:
        return ""
    if len(letters) == 1 or not set(letters) & set("aeiouy"):
        return spelled(letters)
    phones: list[str] = []
    at = 0
    while at < len(letters):
        rest = letters[at:]
        if at and rest == "e" and phones:  # silent at the end
            break
        if at and rest in ("es", "ed") and letters[at - 1] not in "sztd":
            phones.append("Z" if rest == "es" else "D")
            break
        magic_e = len(rest) == 3 and rest[0] in _LONG_VOWELS and rest[2] == "e"
        if magic_e and rest[1] not in "aeiouwyr":
            phones += [_LONG_VOWELS[rest[0]], *_RULES[rest[1]].split()]  # name, bone
            break
        if at == 0 and rest[0] == "y":
            phones.append("Y")
            at += 1
            continue
        if at and letters[at] == letters[at - 1] and letters[at] not in "aeiouy":
            at += 1  # a doubled consonant is one sound
            continue
        for length in range(min(_LONGEST, len(rest)), 0, -1):
            sound = _RULES.get(rest[:length])
            if sound is not None:
                phones += sound.split()
                at += length
                break
    return " ".join(phones)
