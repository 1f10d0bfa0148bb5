"""TOPv2: task-oriented utterances and their parses, as prompts and completions.

A parse nests intents and slots around the words of the utterance, split into tokens:
`[IN:CREATE_ALARM Set alarm [SL:DATE_TIME for 7 am ] ]`.

The prompt is two lines, `Utterance: {utterance}` and `Parse:`, each with its line end; the completion follows on one
line, in one of two renderings:

    parse   the published text, as above
    json    {"IN:CREATE_ALARM": ["Set alarm", {"SL:DATE_TIME": "for 7 am"}]}

The LayerSkip paper (arXiv 2404.16710) states that it "post processed the dataset into a JSON format to be more aligned
with code pre-training" and counts exact matches of the generated with the annotated parse. It gives neither that format
nor its prompt: prompt and JSON here are ours, and exact-match numbers are not comparable with the paper's.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

MAX_DEPTH = 100  # the deepest published parse has 8 levels

_TOKEN = re.compile(r"\[[^\s\[\]]*|\]|[^\s\[\]]+")
_NAME = re.compile(r"[^\s\[\]]+")
_KINDS = ("IN:", "SL:")


EXAMPLE = "[IN:A a [SL:B b ] ]"
"""Its completion stands for a rendering: who keeps completions keeps this one's as well, to see that they change."""


class Rendering(StrEnum):
    """How a parse is written in a completion."""

    parse = "parse"
    json = "json"


@dataclass(frozen=True)
class Node:
    """An intent or a slot, and what it encloses."""

    label: str
    """`IN:` or `SL:` and a name, such as IN:CREATE_ALARM."""
    children: tuple["Node | str", ...]
    """Words, one a string, and nested nodes, in the order of the utterance."""


def prompt(utterance: str) -> str:
    """What a model reads before it writes the completion."""
    return f"Utterance: {utterance}\nParse:\n"


def completion(semantic_parse: str, rendering: Rendering) -> str:
    """The published parse as a model is to write it; raises ValueError where JSON is asked of a malformed one."""
    if rendering is Rendering.parse:
        return semantic_parse.strip()
    return to_json(parse(semantic_parse))


def parse(text: str) -> Node:
    """Read the bracketed form; white space only separates words, and a bracket ends a word.

    Raises ValueError with a one-line reason for text that is not exactly one well-formed intent.
    """
    enclosing: list[tuple[str, list[Node | str]]] = []
    root: Node | None = None
    for match in _TOKEN.finditer(text):
        token, where = match[0], f"character {match.start()}"
        if root is not None:
            raise ValueError(f"{where}: text after the end of the parse")
        if not enclosing and not token.startswith("[IN:"):
            break
        if token.startswith("["):
            if token[1:4] not in _KINDS or len(token) == len("[IN:"):
                raise ValueError(f"{where}: a bracket needs a label, IN: or SL: and a name")
            _check_depth(len(enclosing) + 1)
            enclosing.append((token[1:], []))
        elif token == "]":
            label, children = enclosing.pop()
            node = Node(label, tuple(children))
            if enclosing:
                enclosing[-1][1].append(node)
            else:
                root = node
        else:
            enclosing[-1][1].append(token)
    if enclosing:
        raise ValueError(f"{len(enclosing)} of the brackets are not closed")
    if root is None:
        raise ValueError("the parse does not start with [IN:")
    return root


def bracketed(node: Node) -> str:
    """The bracketed form with single spaces, which is how TOPv2 is published."""
    inside = (bracketed(child) if isinstance(child, Node) else child for child in node.children)
    return " ".join([f"[{node.label}", *inside, "]"])


def to_json(node: Node) -> str:
    """One line of JSON: an object whose one key is the label, and whose value is what it encloses, in order.

    Neighbouring words are one string, joined by spaces; nested nodes are objects. A string alone stands for itself,
    everything else in a list.
    """
    return json.dumps(_to_object(node), ensure_ascii=False)


def from_json(text: str) -> Node:
    """Read what `to_json` wrote; white space is free, and a string alone may stand in a list.

    Raises ValueError with a one-line reason for text that is not JSON, or not the JSON of an intent.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    if not isinstance(value, dict) or not next(iter(value), "").startswith("IN:"):
        raise ValueError("the JSON is not an object with an intent")
    return _from_object(value, depth=1)


def _to_object(node: Node) -> dict[str, object]:
    content: list[str | dict[str, object]] = []
    for child in node.children:
        if isinstance(child, Node):
            content.append(_to_object(child))
        elif content and isinstance(content[-1], str):
            content[-1] += f" {child}"
        else:
            content.append(child)
    alone = len(content) == 1 and isinstance(content[0], str)
    return {node.label: content[0] if alone else content}


def _from_object(value: dict[str, object], depth: int) -> Node:
    _check_depth(depth)
    if len(value) != 1:
        raise ValueError("an object needs a label, and nothing else")
    [(label, content)] = value.items()
    if label[:3] not in _KINDS or not _NAME.fullmatch(label[3:]):
        raise ValueError("a label needs IN: or SL: and a name without spaces or brackets")
    items = [content] if isinstance(content, str) else content
    if not isinstance(items, list):
        raise ValueError("a label encloses words, or a list of words and objects")
    children: list[Node | str] = []
    for item in items:
        if isinstance(item, dict):
            children.append(_from_object(item, depth + 1))
        elif isinstance(item, str) and "[" not in item and "]" not in item:
            children.extend(item.split())
        else:
            raise ValueError("a list holds words without brackets, and objects, only")
    return Node(label, tuple(children))


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same label twice")
    return fields


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
