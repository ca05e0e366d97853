"""Request bodies of the API. Unknown fields are refused, so that a misspelt one is never silently ignored, and so is
what is not of the type that a field has: "no" is not false."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from chassis.schemas import Website
from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

# An e-mail address, or a phone number: with its country, or as numbers with an area code are written. What may as well
# be a date, a range, an amount or the code of a product is none.
PERSONAL = re.compile(
    r"""[^@\s]+@[^@\s]+\.[^@\s]+
    | (\+ | \b00) [1-9] ([ ()/-]{0,2} \d){8,13} \b
    | (?<!\d) (?<!\d-) (\(0[1-9]\d{1,3}\)\ ? | 0[1-9]\d{1,3}[ /-]) \d{3,8} ([ -]?\d{2,5}){1,3} \b
    | (?<!\d) (?<!\d-) (\([2-9]\d\d\)\ ?|[2-9]\d\d[.-]) [2-9]\d\d [.-] \d{4} \b(?![.-]?\d)""",
    re.VERBOSE,
)
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Websites = Annotated[list[Website], Field(max_length=50)]
Status = Literal["draft", "active", "inactive"]


def _no_personal_data(value: str) -> str:
    if PERSONAL.search(value):
        raise ValueError("must not hold personal data such as an e-mail address or a phone number")
    return value


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Override(Strict):
    """One hand-picked person: always in (`include`) or always out, until an instant (epoch ms) or for good."""

    profile: Annotated[str, Field(pattern=r"^[vc]:.{1,200}$")]
    include: bool
    until: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class Definition(Strict):
    """What a segment is. `websites` empty means all; the condition is checked against the vocabulary at save."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    description: Annotated[str, Field(max_length=2000)] = ""
    owner: Annotated[str, Field(max_length=120)] = ""
    websites: Websites = []
    status: Status = "draft"
    applies_to: Literal["visitors", "customers", "both"] = "both"
    condition: dict[str, Any]
    overrides: Annotated[list[Override], Field(max_length=1000)] = []

    _name = field_validator("name")(_no_personal_data)


class NewDefinition(Definition):
    """A definition with the key it is to have for life."""

    key: Key

    _key = field_validator("key")(_no_personal_data)


class Draft(Strict):
    """A condition to try on a sample of the profiles."""

    condition: dict[str, Any]
    applies_to: Literal["visitors", "customers", "both"] = "both"
    websites: Websites = []


class Named(Strict):
    """Keys of segments, as many as one block or rule may name."""

    keys: Annotated[list[str], Field(max_length=600)]


class Events(Strict):
    """A batch of CloudEvents as the collector accepted them."""

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]


PartitionNumber = Annotated[int, Path(ge=0, le=2**31 - 1)]


MOST_OFFSET = 2**53


def _place(value: object) -> object:
    """Checked here, so that what is wrong with it is said of the field and not of each thing it might have been."""
    number = type(value) is int and 0 <= value < MOST_OFFSET
    if not number and value != "earliest":
        raise ValueError(f"must be earliest or an offset below {MOST_OFFSET}")
    return value


class Choice(Strict):
    """Where a halted partition is to go on."""

    model_config = ConfigDict(populate_by_name=True)

    from_: Annotated[
        Literal["earliest"] | Annotated[int, Field(ge=0, lt=MOST_OFFSET)],
        BeforeValidator(_place),
        Field(alias="from"),
    ]
