"""Request bodies of the API: our own content JSON, typed per block; unknown fields and types are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,62}$")]
Text = Annotated[str, Field(max_length=2000)]
# A path of the shop's own, or https with a host. A browser reads \ as / and drops tabs and line ends, so neither those
# nor other spaces and invisible characters may be anywhere, and nothing may stand before the host that is not it.
_REST = r"[^\\\s\p{C}]*"
_HOST = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]{1,5})?"
Link = Annotated[str, Field(max_length=2000, pattern=rf"^(/([^/\\\s\p{{C}}]{_REST})?|https://{_HOST}([/?#]{_REST})?)$")]
Locale = Annotated[str, Field(pattern=r"^(\*|[a-z]{2}(-[A-Z]{2})?)$")]


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid")


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

    schemaVersion: Literal[1] = 1  # noqa: N815 - the published name
    blocks: Annotated[list[Element], Field(min_length=1, max_length=50)]


class Audience(Strict):
    """Segments (any of, all of, none of) and customer groups; empty is everybody."""

    any_of: list[Key] = []
    all_of: list[Key] = []
    none_of: list[Key] = []
    groups: list[str] = []


class DynamicBlock(Strict):
    """A block. Instants are epoch ms; `zone` is the merchant's, in which they were meant."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    status: Literal["draft", "live", "disabled"] = "draft"
    websites: list[Key] = []
    slots: list[Key] = []
    audience: Audience = Audience()
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    starts_at: int | None = None
    ends_at: int | None = None
    zone: str = "UTC"
    content: Annotated[dict[Locale, Content], Field(min_length=1)]

    @model_validator(mode="after")
    def _window(self) -> DynamicBlock:
        if self.starts_at is not None and self.ends_at is not None and self.starts_at >= self.ends_at:
            raise ValueError("a block ends after it starts")
        return self


class NewDynamicBlock(DynamicBlock):
    """A block with the key it is to have for life."""

    key: Key


class SlotBody(Strict):
    """A slot. Without default content it cannot be saved: that is what everybody else and every failure gets."""

    title: Annotated[str, Field(min_length=1, max_length=120)]
    kind: Literal["page", "category", "product", "cart"] = "page"
    websites: list[Key] = []
    capacity: Annotated[int, Field(ge=1, le=50)] = 1
    display: Literal["all", "first"] = "first"
    default: Annotated[dict[Locale, Content], Field(min_length=1)]

    @model_validator(mode="after")
    def _inherited(self) -> SlotBody:
        if "*" not in self.default:
            raise ValueError("the default content needs the locale * that every other one inherits")
        return self


class NewSlot(SlotBody):
    """A slot with the key it is to have for life."""

    key: Key


class Selection(Strict):
    """Whom to select for."""

    website: str
    slots: Annotated[list[str], Field(min_length=1, max_length=20)]
    segments: list[str] = []
    group: str = "guest"
    locale: str = "*"
    at_ms: int
    explain: bool = False


class Selections(Strict):
    """Many at once."""

    asks: Annotated[list[Selection], Field(max_length=100)]
