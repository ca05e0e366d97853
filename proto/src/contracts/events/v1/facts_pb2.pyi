from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MembershipChanged(_message.Message):
    __slots__ = ("profile", "segment", "entered", "at_ms", "cause", "definition_version", "source_event")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ENTERED_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_EVENT_FIELD_NUMBER: _ClassVar[int]
    profile: str
    segment: str
    entered: bool
    at_ms: int
    cause: str
    definition_version: int
    source_event: str
    def __init__(self, profile: _Optional[str] = ..., segment: _Optional[str] = ..., entered: _Optional[bool] = ..., at_ms: _Optional[int] = ..., cause: _Optional[str] = ..., definition_version: _Optional[int] = ..., source_event: _Optional[str] = ...) -> None: ...

class TargetingChanged(_message.Message):
    __slots__ = ("website", "version", "tags")
    WEBSITE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    website: str
    version: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, website: _Optional[str] = ..., version: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...
