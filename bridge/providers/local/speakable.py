"""Text as people write it, in words that the voice reads well: times, money, numbers, dates, abbreviations."""

import calendar
import re
import unicodedata

_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_PLURALS = {"penny": "pence"}

PHONE_DIGITS = 7
"""From so many digits on a number is said digit by digit."""

_MARKUP = re.compile(r"[*#`~|<>{}\\^]+|(?<!\w)_+|_+(?!\w)")

_PHONE = re.compile(r"(?<![\d.,:$£€/-])(\+\s?)?\(?\d[\d\s().-]*\d(?![\d:,/]|\.\d|\s?[ap]\.?m\b|%)", re.IGNORECASE)
_YEARS = re.compile(r"(?:19|20)\d\d\s?-\s?(?:19|20)\d\d\Z")
_ISO_DATE = re.compile(r"\b((?:19|20)\d\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b")
_RANGE = re.compile(r"(?<=[\dm])\s*[–—-]\s*(?=[$£€]?\d)")
_DAYS = {name[:3]: name for name in calendar.day_name}
_DAY_RANGE = re.compile(rf"\b({'|'.join(_DAYS)})\s?[–—-]\s?({'|'.join(_DAYS)})\b")
_HALF = r"(?:\s*(?P<half>[ap])(?:m\b|\.m\b\.?))"
_TIME = re.compile(
    rf"(?<![\d:.,])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::00)?(?![\d:]){_HALF}?", re.IGNORECASE
)
_HOUR = re.compile(rf"(?<![\d:.,])(?P<hour>1[0-2]|[1-9]){_HALF}", re.IGNORECASE)
_MONEY = re.compile(
    r"([$£€])\s?(\d[\d,]*)(?:\.(\d+))?(?!\d)(?:\s?(thousand|million|billion|k|m|bn)\b)?", re.IGNORECASE
)
_SCALES = {"k": "thousand", "m": "million", "bn": "billion"}

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), spoken)
    for pattern, spoken in (
        (r"\b[Dd]r\.(?=\s)", "Doctor"),
        (r"\bMr\.(?=\s)", "Mister"),
        (r"\bMrs\.(?=\s)", "Missis"),
        (r"\bMs\.(?=\s)", "Miz"),
        (r"\bProf\.(?=\s)", "Professor"),
        (r"\b([A-Z]\w+ )St\.(?!\w)", r"\1Street"),
        (r"\bSt\.(?=\s[A-Z])", "Saint"),
        (r"\bAve\.", "Avenue"),
        (r"\bRd\.", "Road"),
        (r"\b[Nn]o\.\s?(?=\d)", "number "),
        (r"(?<!\w)#\s?(?=\d)", "number "),
        (r"\be\.g\.", "for example"),
        (r"\bi\.e\.", "that is"),
        (r"\betc\.(?=\s+[a-z])", "et cetera"),
        (r"\betc\.", "et cetera."),
        (r"\b[Aa]pprox\.", "approximately"),
        (r"\bvs?\.(?=\s)", "versus"),
        (r"\b[Ee]xt\.", "extension"),
        (r"\b[Tt]el\.", "telephone"),
        (r"\b24/7\b", "24 7"),
        (r"\s*&\s*", " and "),
        (r"(?<=\w)@(?=\w)", " at "),
        (r"(?<=\d)\s?°\s?C\b", " degrees Celsius"),
        (r"(?<=\d)\s?°\s?F\b", " degrees Fahrenheit"),
    )
)


def speakable(text: str, language: str = "en") -> str:
    """`text` for the voice. Times become 12-hour ones ("19:30" is "7 30 PM"), long numbers are spelled, markup and
    pictures are dropped. Of a language other than English only markup and pictures are touched."""
    english = language.partition("-")[0].lower() == "en"
    if english:
        for pattern, spoken in _WORDS:
            text = pattern.sub(spoken, text)
    text = "".join(char for char in text if unicodedata.category(char) not in ("So", "Cs", "Co", "Cn", "Cf"))
    text = _MARKUP.sub("", text)
    if english:
        text = _ISO_DATE.sub(_date, text)
        text = _PHONE.sub(_phone, text)
        text = _DAY_RANGE.sub(lambda found: f"{_DAYS[found[1]]} to {_DAYS[found[2]]}", text)
        text = _RANGE.sub(" to ", text)
        text = _TIME.sub(_time, text)
        text = _HOUR.sub(_time, text)
        text = _MONEY.sub(_money, text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def _date(found: re.Match[str]) -> str:
    day = int(found[3])
    ending = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{calendar.month_name[int(found[2])]} {day}{ending}, {found[1]}"


def _phone(found: re.Match[str]) -> str:
    whole = found[0]
    groups = re.findall(r"\d+", whole)
    digits = "".join(groups)
    leading_zero = len(groups) == 1 and digits.startswith("0") and len(digits) > 1
    if _YEARS.match(whole) or (len(digits) < PHONE_DIGITS and not leading_zero):
        return whole
    if len(groups) == 1 and len(digits) > 4:
        # Threes, and four at the end, as people say them; what is left over comes first.
        head, odd = digits[:-4], len(digits[:-4]) % 3
        groups = [head[:odd], *(head[start : start + 3] for start in range(odd, len(head), 3)), digits[-4:]]
    plus = "plus " if found[1] else ""
    return plus + ", ".join(" ".join(group) for group in groups if group)


def _time(found: re.Match[str]) -> str:
    parts = found.groupdict()
    hour, minute, half = int(parts["hour"]), int(parts.get("minute") or 0), (parts["half"] or "").upper()
    if not half and (hour > 12 or hour == 0 or parts["hour"].startswith("0")):
        half = "P" if 12 <= hour < 24 else "A"
    spoken = str((hour - 1) % 12 + 1)
    if minute:
        spoken += f" oh {minute}" if minute < 10 else f" {minute}"
    elif not half:
        spoken += " o'clock"
    if half:
        spoken += f" {half}M"
    ends_sentence = found[0].endswith(".") and re.match(r"\s*\Z|\s+[A-Z]", found.string[found.end() :])
    return spoken + ("." if ends_sentence else "")


def _money(found: re.Match[str]) -> str:
    sign, whole, fraction, scale = found.groups()
    unit, small = _CURRENCIES[sign]
    if scale or (fraction and len(fraction) != 2):
        amount = whole + (f".{fraction}" if fraction else "")
        named = _SCALES.get(scale.lower(), scale) if scale else ""
        return f"{amount} {named} {unit}s".replace("  ", " ")
    spoken = [_count(int(whole.replace(",", "")), whole, unit)] if int(whole.replace(",", "")) or not fraction else []
    if fraction and int(fraction):
        spoken.append(_count(int(fraction), str(int(fraction)), small))
    return " and ".join(spoken) or f"0 {unit}s"


def _count(number: int, written: str, unit: str) -> str:
    return f"{written} {unit if number == 1 else _PLURALS.get(unit, unit + 's')}"
