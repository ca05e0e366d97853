"""Request bodies of the API: our own content JSON, typed per block; unknown fields and other types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from chassis.schemas import MOST_KILLED_ASKED, Instant, Version, Website, Zone
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,62}$")]
Keys = Annotated[list[Key], Field(max_length=200)]
Websites = Annotated[list[Website], Field(max_length=200)]
SegmentKeys = Annotated[list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]], Field(max_length=200)]
Group = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=2000)]
# A path of the shop's own, or https with a host. A browser reads \ as / and drops tabs and line ends, so neither those
# nor other spaces and invisible characters may be anywhere, and nothing may stand before the host that is not it.
_REST = r"[^\\\s\p{C}]*"
_HOST = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]{1,5})?"
Link = Annotated[str, Field(max_length=2000, pattern=rf"^(/([^/\\\s\p{{C}}]{_REST})?|https://{_HOST}([/?#]{_REST})?)$")]
Locale = Annotated[str, Field(pattern=r"^(\*|[a-z]{2}(-[A-Z]{2})?)$")]


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextProps(Strict):
    """A heading or a paragraph."""

    text: Text


class ImageProps(Strict):
    """An image, with words for those who do not see it."""

    src: Link
    alt: Text


class BannerProps(Strict):
    """A headline with an optional text, image and link."""

    title: Text
    text: Text = ""
    image: Link | None = None
    href: Link | None = None


class CtaProps(Strict):
    """A button."""

    label: Text
    href: Link


class CouponProps(Strict):
    """A code to copy."""

    code: Annotated[str, Field(max_length=64)]
    text: Text = ""


class Words(Strict):
    """heading, text"""

    id: Key
    type: Literal["heading", "text"]
    props: TextProps


class Image(Strict):
    """image"""

    id: Key
    type: Literal["image"]
    props: ImageProps


class Banner(Strict):
    """banner"""

    id: Key
    type: Literal["banner"]
    props: BannerProps


class Cta(Strict):
    """cta"""

    id: Key
    type: Literal["cta"]
    props: CtaProps


class Coupon(Strict):
    """coupon"""

    id: Key
    type: Literal["coupon"]
    props: CouponProps


Element = Annotated[Words | Image | Banner | Cta | Coupon, Field(discriminator="type")]


class Content(Strict):
    """What is shown: typed elements, never HTML."""

    schemaVersion: Annotated[int, Field(ge=1, le=1)] = 1  # noqa: N815 - the published name
    blocks: Annotated[list[Element], Field(min_length=1, max_length=50)]


def _no_tags(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Faults of content point into it as it was sent: pydantic's words for a chosen type and for a key are left out."""
    try:
        return handler(value)
    except ValidationError as error:
        raise ValidationError.from_exception_data(error.title, [_line(fault) for fault in error.errors()]) from None


def _line(fault: Any) -> InitErrorDetails:
    where, typed = list(fault["loc"]), fault["loc"][1:2] == ("blocks",)
    if typed and len(where) > 3:
        del where[3]
    elif typed and fault["type"].startswith("union_tag"):
        where.append("type")
    elif where[-1:] == ["[key]"]:
        del where[-1]
    kind = PydanticCustomError(fault["type"], "{detail}", {"detail": fault["msg"]})
    return InitErrorDetails(type=kind, loc=tuple(where), input=fault["input"])


Contents = Annotated[dict[Locale, Content], Field(min_length=1, max_length=100), WrapValidator(_no_tags)]


class Audience(Strict):
    """Segments (any of, all of, none of) and customer groups; empty is everybody."""

    any_of: SegmentKeys = []
    all_of: SegmentKeys = []
    none_of: SegmentKeys = []
    groups: Annotated[list[Group], Field(max_length=200)] = []


class DynamicBlock(Strict):
    """A block. Instants are epoch ms; `zone` is the merchant's, in which they were meant."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    status: Literal["draft", "live", "disabled"] = "draft"
    websites: Websites = []
    slots: Keys = []
    audience: Audience = Audience()
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    zone: Zone = "UTC"
    content: Contents

    @field_validator("ends_at")
    @classmethod
    def _window(cls, value: int | None, info: ValidationInfo) -> int | None:
        starts_at = info.data.get("starts_at")
        if value is not None and starts_at is not None and starts_at >= value:
            raise ValueError("a block ends after it starts")
        return value


class NewDynamicBlock(DynamicBlock):
    """A block with the key it is to have for life."""

    key: Key


class SlotBody(Strict):
    """A slot. Without default content it cannot be saved: that is what everybody else and every failure gets."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    kind: Literal["page", "category", "product", "cart"] = "page"
    websites: Websites = []
    capacity: Annotated[int, Field(ge=1, le=50)] = 1
    display: Literal["all", "first"] = "first"
    default: Contents

    @field_validator("default")
    @classmethod
    def _inherited(cls, value: dict[str, Content]) -> dict[str, Content]:
        if "*" not in value:
            raise ValueError("the default content needs the locale * that every other one inherits")
        return value


class NewSlot(SlotBody):
    """A slot with the key it is to have for life."""

    key: Key


class Selection(Strict):
    """Whom to select for."""

    website: Name
    slots: Annotated[list[Name], Field(min_length=1, max_length=20)]
    segments: list[Name] = []
    unknown: list[Name] = []
    group: Text = "guest"
    locale: Name = "*"
    at_ms: Annotated[int, Field(ge=0, le=253_402_300_799_999)]
    version: Version = None
    killed: Annotated[list[Name], Field(max_length=MOST_KILLED_ASKED)] = []
    explain: bool = False


class Selections(Strict):
    """Many at once: each is a Selection, judged alone."""

    asks: Annotated[list[Any], Field(max_length=100)]


KillWord = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{0,64}$")]
KillName = Annotated[str, Field(pattern=r"^(block|slot|rule):[a-z][a-z0-9.-]{0,62}$")]
Whole = Annotated[int, Field(ge=0, lt=10**15)]


class Kill(Strict):
    """By whom, and since when (epoch ms), and as which role its owner is still to be asked."""

    by: Annotated[str, Field(pattern=r"^[ -~]{0,200}$")]
    at_ms: Whole
    owed: Annotated[str, Field(pattern=r"^[a-z]{0,20}$")]


class KillMark(Strict):
    """Which state of which list of kills."""

    list: KillWord
    number: Whole
    last: KillWord


class KillList(KillMark):
    """A list of kills, and `over` which one it is to be kept: all of that one is in it."""

    names: Annotated[dict[KillName, Kill], Field(max_length=MOST_KILLED_ASKED)]
    over: KillMark
