from google.protobuf import struct_pb2 as _struct_pb2
from contracts.events.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OrderPlaced(_message.Message):
    __slots__ = ("order_id", "status", "grand_total", "subtotal", "items", "shipping_address", "coupon")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    GRAND_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUBTOTAL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SHIPPING_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    COUPON_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    status: str
    grand_total: _common_pb2.Money
    subtotal: _common_pb2.Money
    items: _containers.RepeatedCompositeFieldContainer[_common_pb2.Line]
    shipping_address: _common_pb2.Address
    coupon: str
    def __init__(self, order_id: _Optional[str] = ..., status: _Optional[str] = ..., grand_total: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., subtotal: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., items: _Optional[_Iterable[_Union[_common_pb2.Line, _Mapping]]] = ..., shipping_address: _Optional[_Union[_common_pb2.Address, _Mapping]] = ..., coupon: _Optional[str] = ...) -> None: ...

class OrderStatusChanged(_message.Message):
    __slots__ = ("order_id", "status")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    status: str
    def __init__(self, order_id: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class RefundIssued(_message.Message):
    __slots__ = ("order_id", "refund_id", "amount")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    REFUND_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    refund_id: str
    amount: _common_pb2.Money
    def __init__(self, order_id: _Optional[str] = ..., refund_id: _Optional[str] = ..., amount: _Optional[_Union[_common_pb2.Money, _Mapping]] = ...) -> None: ...

class Identify(_message.Message):
    __slots__ = ("visitor_id", "attributes")
    VISITOR_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    visitor_id: str
    attributes: _struct_pb2.Struct
    def __init__(self, visitor_id: _Optional[str] = ..., attributes: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Login(_message.Message):
    __slots__ = ("visitor_id", "customer_id")
    VISITOR_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    visitor_id: str
    customer_id: str
    def __init__(self, visitor_id: _Optional[str] = ..., customer_id: _Optional[str] = ...) -> None: ...

class Logout(_message.Message):
    __slots__ = ("visitor_id",)
    VISITOR_ID_FIELD_NUMBER: _ClassVar[int]
    visitor_id: str
    def __init__(self, visitor_id: _Optional[str] = ...) -> None: ...

class GroupAssigned(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class ConsentChanged(_message.Message):
    __slots__ = ("purposes",)
    class PurposesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bool
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bool] = ...) -> None: ...
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    purposes: _containers.ScalarMap[str, bool]
    def __init__(self, purposes: _Optional[_Mapping[str, bool]] = ...) -> None: ...
