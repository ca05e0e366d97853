"""The kernel of conditions: one ALL / ANY of TRUE / FALSE tree, many vocabularies. Pure: values in, values out."""

from conditions.compiler import Program, Reading, compile_set
from conditions.read import Fault, Invalid, parse
from conditions.text import from_text, to_text
from conditions.tree import Group, Leaf, LeafType, Node, Vocabulary, leaves, to_json
from conditions.walk import explain, holds, next_change_at, split

__all__ = [
    "Fault", "Group", "Invalid", "Leaf", "LeafType", "Node", "Program", "Reading", "Vocabulary", "compile_set", "explain",
    "from_text", "holds", "leaves", "next_change_at", "parse", "split", "to_json", "to_text",
]  # fmt: skip
