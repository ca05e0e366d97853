from google.protobuf import struct_pb2 as _struct_pb2
from contracts.events.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProductView(_message.Message):
    __slots__ = ("sku", "name", "category", "brand", "price")
    SKU_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    sku: str
    name: str
    category: str
    brand: str
    price: _common_pb2.Money
    def __init__(self, sku: _Optional[str] = ..., name: _Optional[str] = ..., category: _Optional[str] = ..., brand: _Optional[str] = ..., price: _Optional[_Union[_common_pb2.Money, _Mapping]] = ...) -> None: ...

class CategoryView(_message.Message):
    __slots__ = ("category",)
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    category: str
    def __init__(self, category: _Optional[str] = ...) -> None: ...

class PageView(_message.Message):
    __slots__ = ("path", "title", "referrer")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    REFERRER_FIELD_NUMBER: _ClassVar[int]
    path: str
    title: str
    referrer: str
    def __init__(self, path: _Optional[str] = ..., title: _Optional[str] = ..., referrer: _Optional[str] = ...) -> None: ...

class Search(_message.Message):
    __slots__ = ("query", "results")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    query: str
    results: int
    def __init__(self, query: _Optional[str] = ..., results: _Optional[int] = ...) -> None: ...

class Custom(_message.Message):
    __slots__ = ("name", "props")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    props: _struct_pb2.Struct
    def __init__(self, name: _Optional[str] = ..., props: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CartUpdate(_message.Message):
    __slots__ = ("cart_id", "items", "subtotal", "grand_total", "coupon")
    CART_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SUBTOTAL_FIELD_NUMBER: _ClassVar[int]
    GRAND_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COUPON_FIELD_NUMBER: _ClassVar[int]
    cart_id: str
    items: _containers.RepeatedCompositeFieldContainer[_common_pb2.Line]
    subtotal: _common_pb2.Money
    grand_total: _common_pb2.Money
    coupon: str
    def __init__(self, cart_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[_common_pb2.Line, _Mapping]]] = ..., subtotal: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., grand_total: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., coupon: _Optional[str] = ...) -> None: ...

class AddToCart(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: _common_pb2.Line
    def __init__(self, item: _Optional[_Union[_common_pb2.Line, _Mapping]] = ...) -> None: ...

class RemoveFromCart(_message.Message):
    __slots__ = ("item",)
    ITEM_FIELD_NUMBER: _ClassVar[int]
    item: _common_pb2.Line
    def __init__(self, item: _Optional[_Union[_common_pb2.Line, _Mapping]] = ...) -> None: ...

class WishlistUpdate(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_common_pb2.Line]
    def __init__(self, items: _Optional[_Iterable[_Union[_common_pb2.Line, _Mapping]]] = ...) -> None: ...

class CheckoutStarted(_message.Message):
    __slots__ = ("cart_id",)
    CART_ID_FIELD_NUMBER: _ClassVar[int]
    cart_id: str
    def __init__(self, cart_id: _Optional[str] = ...) -> None: ...
