"""Keys in place of patients' identifiers, and texts cleaned of them."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

from pydicom.dataset import Dataset

from stsmm_core.cohort.dicom.scan import NAMES, NUMBERS, OTHER_NUMBERS, PLACES, text
from stsmm_core.cohort.dictionary import PATIENT_ID
from stsmm_core.errors import CohortError
from stsmm_core.files import write_text_atomically

FILE_NAME = re.compile(r"[\w.-]*\w")
SALT_BYTES = 32
KEY_DIGITS = 12
"""Hexadecimal digits of a key: a chance below 1e-8 that two of a thousand patients collide."""
SHORTEST_SECRET, SHORTEST_WITHIN_WORDS, SHORTEST_OF_OTHERS = 2, 3, 4
"""A single letter would blank half of every text, and two letters (Ng, Li) half of its words: two are blanked only
where they stand alone. Words of two letters in a place (of, am, St) name nobody, and messages are full of them.
Of the many other patients' names, also those of three letters (Art, Tim) would spoil words (arterial, time)."""
LONG_NUMBER = r"\d{4,}"
"""Digits of a number that are enough to find it by; fewer stand in every text."""
LETTER_OR_DIGIT = r"[^\W_]"


@dataclass(frozen=True)
class Patient:
    """A patient of the clinical table.

    Attributes:
        identifier: the hospital's; it must not be written or printed anywhere.
        key: name of the patient in the cohort.
        line: of the clinical table, by which the hospital can tell who it is.
    """

    identifier: str
    key: str
    line: int

    def __str__(self) -> str:
        return f"{self.key} (line {self.line} of the clinical table)"


def name_patients(lines: Mapping[str, int], salt: bytes | None) -> list[Patient]:
    """Name every patient, given by identifier and line; without a salt each keeps the identifier.

    Raises:
        CohortError: when two patients get one key.
    """
    patients = [
        Patient(identifier, identifier if salt is None else pseudonym(identifier, salt), line)
        for identifier, line in lines.items()
    ]
    unsafe = [patient.line for patient in patients if not FILE_NAME.fullmatch(patient.key)]
    if unsafe:
        raise CohortError(
            f"the {PATIENT_ID} of line {', '.join(map(str, unsafe))} cannot name a folder; "
            "use letters, digits, '_', '-' and '.', or leave --keep-ids out"
        )
    if len({patient.key for patient in patients}) < len(patients):
        raise CohortError("two patients got the same key by chance; import again with another --salt")
    return patients


def read_salt(path: Path) -> bytes:
    """The salt in a file.

    Raises:
        CohortError: when the file holds no salt or cannot be read.
    """
    try:
        salt = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise CohortError(f"{path}: the salt cannot be read ({error.strerror})") from None
    except ValueError:
        raise CohortError(
            f"{path}: holds no salt (hexadecimal digits); name another file, or remove this one"
        ) from None
    if len(salt) < SALT_BYTES:
        raise CohortError(f"{path}: the salt is shorter than {SALT_BYTES} bytes; name another file, or remove this one")
    return salt


def write_salt(path: Path, salt: bytes) -> None:
    """Keep a salt in a file, readable for its owner alone.

    Raises:
        CohortError: when the file cannot be written.
    """
    try:
        write_text_atomically(path, salt.hex() + "\n")
    except OSError as error:
        raise CohortError(f"{path}: the salt cannot be written ({error.strerror})") from None


def new_salt() -> bytes:
    """A salt that nobody keeps: the same patient gets another key at the next import."""
    return secrets.token_bytes(SALT_BYTES)


def pseudonym(patient: str, salt: bytes) -> str:
    """The key of a patient: HMAC-SHA256 under the site's salt; without the salt it says nothing, not even by trial."""
    return "P" + hmac.new(salt, patient.encode(), hashlib.sha256).hexdigest()[:KEY_DIGITS]


def cleaned(value: str, secrets_: Iterable[str], *, shortest_within_words: int = SHORTEST_WITHIN_WORDS) -> str:
    """A text with every identifier in it blanked out; those shorter than the given length only as words."""
    whole = _folded(value)
    # Of the thousands of identifiers in an export few are worth a regular expression.
    for secret in sorted((secret for secret in secrets_ if _folded(secret) in whole), key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < shortest_within_words:
            pattern = f"(?<!{LETTER_OR_DIGIT}){pattern}(?!{LETTER_OR_DIGIT})"
        value = re.sub(pattern, "***", value, flags=re.IGNORECASE)
    return value


@cache
def _folded(value: str) -> str:
    """A text so that whatever a regular expression finds in it, upper and lower case alike, is in it letter by letter.

    Of the letters that casefold leaves apart, regular expressions take the Turkish ones for an i.
    """
    return value.casefold().replace("\u0131", "i").replace("i\u0307", "i")


def describer(headers: Iterable[Dataset], known: Iterable[Patient]) -> Callable[[str, Dataset], str]:
    """What makes a text of a header fit to be seen: it blanks the identifiers of everyone, not of its patient alone.

    Args:
        headers: of every series of the export.
        known: the patients of the clinical table.
    """
    everyone = set().union(*(identifiers_of(patient.identifier, ()) for patient in known), *map(identifiers, headers))
    blanked = cache(partial(cleaned, secrets_=everyone, shortest_within_words=SHORTEST_OF_OTHERS))
    return lambda value, header: blanked(cleaned(value, identifiers(header)))


def identifiers_of(identifier: str, headers: Iterable[Dataset]) -> set[str]:
    """What a text about a patient must not hold: the hospital's identifier, and what the headers say."""
    long_enough = {identifier} if len(identifier) >= SHORTEST_SECRET else set()
    return long_enough.union(*(identifiers(header) for header in headers))


def identifiers(header: Dataset) -> set[str]:
    """What a header says of who the patient is: whole values, and the parts of names."""
    found: set[str] = set()
    for keywords, shortest in ((NAMES, SHORTEST_SECRET), (PLACES, SHORTEST_WITHIN_WORDS)):
        for keyword in keywords:
            value = text(header, keyword)
            # Both ways: a part may itself hold a hyphen or a digit.
            parts = {value, *re.split(r"[\^\\=\s,]+", value), *re.split(r"[\W\d_]+", value)}
            found |= {part for part in parts if len(part) >= shortest}
    numbers = [text(header, keyword) for keyword in NUMBERS]
    numbers += [text(item, "PatientID") for item in header.get(OTHER_NUMBERS) or ()]
    for value in numbers:
        parts = {value, *re.split(r"[\^\\=,]+", value), *re.findall(LONG_NUMBER, value)}
        found |= {part for part in parts if len(part) >= SHORTEST_SECRET}
    return found | _date_forms(text(header, "PatientBirthDate"))


def _date_forms(date: str) -> set[str]:
    """The usual ways to write a date (YYYYMMDD), with and without leading zeros and century; none for another text."""
    if not re.fullmatch(r"\d{8}", date):
        return {date} if len(date) >= SHORTEST_SECRET else set()
    years, months, days = (
        {part, short}
        for part, short in ((date[:4], date[2:4]), (date[4:6], date[4:6].lstrip("0")), (date[6:], date[6:].lstrip("0")))
    )
    forms = {
        sign.join(order)
        for year, month, day in product(years, months, days)
        for order in ((day, month, year), (month, day, year), (year, month, day))
        for sign in (".", "-", "/", " ", "_", ". ")
    }
    # Without a sign between them, parts of one digit are no date to anyone.
    return forms | {
        "".join(order)
        for year in years
        for order in ((date[6:], date[4:6], year), (date[4:6], date[6:], year), (year, date[4:6], date[6:]))
    }
