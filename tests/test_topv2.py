"""TOPv2 parses survive both renderings, and malformed ones are refused in one line."""

import json
import random

import pytest

from data.sources.topv2 import MAX_DEPTH, Node, Rendering, bracketed, completion, from_json, parse, prompt, to_json

# In the manner of the published rows: tokens split off, an empty slot, three levels, quotes and letters beyond ASCII.
SAMPLES = [
    "[IN:CREATE_ALARM Set alarm [SL:DATE_TIME for 7 am ] ]",
    "[IN:SNOOZE_ALARM ]",
    "[IN:CREATE_ALARM wake me [SL:DATE_TIME at 6 : 30 ] [SL:DATE_TIME ] and [SL:DATE_TIME at 7 ] . ]",
    "[IN:GET_ALARM show [SL:ALARM_NAME [IN:GET_TIME [SL:DATE_TIME for this week ] ] ] , please ]",
    '[IN:PLAY_MUSIC play [SL:MUSIC_TRACK_TITLE "Bésame" {x} \\n // don\u2019t : , ] \' ]',
]
ALARM = Node("IN:CREATE_ALARM", ("Set", "alarm", Node("SL:DATE_TIME", ("for", "7", "am"))))
ALARM_JSON = '{"IN:CREATE_ALARM": ["Set alarm", {"SL:DATE_TIME": "for 7 am"}]}'


def random_node(rng: random.Random, depth: int = 1) -> Node:
    children: list[Node | str] = []
    for _ in range(rng.randrange(5)):
        if depth < 6 and rng.random() < 0.4:
            children.append(random_node(rng, depth + 1))
        else:
            children.append("".join(rng.choices("ab:{}\"'\\,é☃", k=rng.randint(1, 4))))
    kind = "IN" if depth == 1 else rng.choice(["IN", "SL"])
    return Node(f"{kind}:{rng.choice(['A', 'B_C', 'é:1'])}", tuple(children))


def nested_parse(depth: int) -> str:
    return "[IN:A " * depth + "]" * depth


def nested_json(depth: int) -> str:
    return '{"IN:A": [' * depth + "]}" * depth


def test_hand_example() -> None:
    assert parse(SAMPLES[0]) == ALARM
    assert bracketed(ALARM) == SAMPLES[0]
    assert to_json(ALARM) == ALARM_JSON
    assert from_json(ALARM_JSON) == ALARM


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip(text: str) -> None:
    node = parse(text)
    assert bracketed(node) == text
    assert from_json(to_json(node)) == node
    assert "\n" not in to_json(node)


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_random_trees(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        node = random_node(rng)
        assert parse(bracketed(node)) == node
        assert from_json(to_json(node)) == node


def test_white_space_is_free() -> None:
    assert parse("  [IN:CREATE_ALARM\tSet  alarm[SL:DATE_TIME for 7 am]]\n") == ALARM
    assert from_json(json.dumps(json.loads(ALARM_JSON), indent=2)) == ALARM
    assert from_json(ALARM_JSON.replace('"for 7 am"', '["for 7", "am"]')) == ALARM


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "start"),
        ("   ", "start"),
        ("Set alarm", "start"),
        ("]", "start"),
        ("[SL:DATE_TIME 7 am ]", "start"),
        ("Set [IN:CREATE_ALARM alarm ]", "start"),
        ("[in:create_alarm ]", "start"),
        ("[IN: alarm ]", "label"),
        ("[IN:A [SL: now ] ]", "label"),
        ("[IN:A [ now ] ]", "label"),
        ("[IN:A [DATE now ] ]", "label"),
        ("[IN:A now", "not closed"),
        ("[IN:A [SL:B now ]", "1 of the brackets"),
        ("[IN:A ] ]", "after the end"),
        ("[IN:A ] now", "character 8: text after the end"),
        ("[IN:A ] [IN:B ]", "after the end"),
    ],
)
def test_malformed_parse(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        (ALARM_JSON[:-1], "delimiter"),
        (ALARM_JSON + "]", "Extra data"),
        ("[]", "intent"),
        ("7", "intent"),
        ("{}", "intent"),
        ('{"SL:A": []}', "intent"),
        ('{"A": []}', "intent"),
        ('{"IN:A": 7}', "encloses words"),
        ('{"IN:A": {"SL:B": "now"}}', "encloses words"),
        ('{"IN:A": [], "SL:B": []}', "nothing else"),
        ('{"IN:A": [], "IN:A": []}', "twice"),
        ('{"IN:A": [{"B": []}]}', "label needs IN: or SL:"),
        ('{"IN:A": [{}]}', "needs a label"),
        ('{"IN:": []}', "and a name"),
        ('{"IN:A": [{"SL:B C": []}]}', "without spaces"),
        ('{"IN:A]": []}', "or brackets"),
        ('{"IN:A": ["now ]"]}', "brackets"),
        ('{"IN:A": "now ]"}', "brackets"),
        ('{"IN:A": [7]}', "list holds"),
        ('{"IN:A": [["now"]]}', "list holds"),
    ],
)
def test_malformed_json(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)


def test_depth_is_bounded() -> None:
    assert parse(nested_parse(MAX_DEPTH)) == from_json(nested_json(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 100_000):
        for hostile in (nested_parse(depth), "[IN:A " * depth):
            with pytest.raises(ValueError, match="nested deeper"):
                parse(hostile)
        for hostile in (nested_json(depth), '{"IN:A": ' + "[" * 100_000):
            with pytest.raises(ValueError, match="nested deeper"):
                from_json(hostile)


def test_prompt() -> None:
    assert prompt("Set alarm for 7am") == "Utterance: Set alarm for 7am\nParse:\n"


def test_completion() -> None:
    assert completion(f" {SAMPLES[0]}\n", Rendering.parse) == SAMPLES[0]
    assert completion(SAMPLES[0], Rendering.json) == ALARM_JSON
    assert completion("[IN:A  not  ours to mend", Rendering("parse")) == "[IN:A  not  ours to mend"
    with pytest.raises(ValueError, match="not closed"):
        completion("[IN:A", Rendering("json"))
