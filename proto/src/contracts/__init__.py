"""What crosses a wire: topics, messages, and the codec between bytes and events."""
