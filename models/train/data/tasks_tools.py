# SPDX-License-Identifier: Apache-2.0
"""Tool calls in Hermes format, answers from tool results, and leaving tools alone.

Names of functions and parameters vary on purpose, down to random ones: a model that saw one name per
purpose would recite it instead of reading the list of tools.
"""
from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Callable

from .core import REFUSAL, Message, Sample, draw_sample, phrase, task
from .places import CITIES
from .words import COLORS, NAMES, WORDS

Values = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One purpose that a tool may serve."""

    names: tuple[str, ...]
    about: tuple[str, ...]
    params: tuple[tuple[tuple[str, ...], str], ...]  # (aliases, JSON type); the first alias names the slot
    asks: tuple[str, ...]
    next_asks: tuple[str, ...]  # follow-ups that name only the new value
    draw: Callable[[random.Random], Values]
    result: Callable[[random.Random, Values], tuple[str, str]]  # content of the tool message, answer


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _city(rng: random.Random) -> Values:
    return {"city": rng.choice(CITIES)}


SKY = "sunny cloudy rainy windy snowy foggy clear stormy".split()


def _weather(rng: random.Random, v: Values) -> tuple[str, str]:
    t, sky = rng.randint(-9, 40), rng.choice(SKY)
    key = rng.choice(("temperature", "temp", "temp_c", "temperature_c", "degrees"))
    form = rng.randrange(6)
    both = f"It is {t} degrees and {sky} in {v['city']}."
    if form == 0:
        return _dump({key: t}), f"It is {t} degrees in {v['city']}."
    if form == 1:
        return rng.choice((f"{t} degrees, {sky}", f"{t} C, {sky}", f"{t}°C and {sky}", f"{sky}, {t} degrees")), both
    if form == 2:
        return _dump({"city": v["city"], key: t, rng.choice(("condition", "sky", "weather")): sky}), both
    if form == 3:
        return _dump({key: t, "unit": "celsius", rng.choice(("condition", "conditions", "description")): sky}), both
    if form == 4:
        return _dump({rng.choice(("condition", "weather")): sky, key: t}), both
    return _dump({key: t, rng.choice(("condition", "conditions", "sky", "weather")): sky}), both


def _clock(rng: random.Random, v: Values) -> tuple[str, str]:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return rng.choice((_dump({"time": clock}), clock, _dump({"city": v["city"], "time": clock}))), f"It is {clock} in {v['city']}."


def _expression(rng: random.Random) -> Values:
    a, b = rng.randint(2, 9999), rng.randint(2, 999)
    return {"expression": f"{a} {rng.choice('+-*/')} {b}"}


def _number_result(rng: random.Random, v: Values) -> tuple[str, str]:
    n = rng.randint(1, 99999)
    return rng.choice((_dump({"result": n}), str(n), _dump({"value": n}))), f"The result is {n}."


SYMBOLS = "AAPL MSFT GOOG AMZN TSLA NVDA META IBM INTC AMD ORCL SAP NFLX".split()


def _price(rng: random.Random, v: Values) -> tuple[str, str]:
    n = rng.randint(5, 999)
    return rng.choice((_dump({"price": n}), str(n), _dump({"symbol": v["symbol"], "price": n}))), f"The price of {v['symbol']} is {n}."


def _done(rng: random.Random, v: Values) -> tuple[str, str]:
    return rng.choice(('{"status": "ok"}', "ok", '{"success": true}', "done", '{"ok": true}')), "Done."


KINDS = {
    "weather": Kind(
        ("get_weather", "get_current_weather", "weather", "getWeather", "current_weather", "weather_lookup", "fetch_weather", "check_weather"),
        ("Get the weather in a city", "Get the current weather for a location", "Returns the weather of a place", "Current weather", "Look up the weather"),
        ((("city", "location", "place", "town", "city_name", "q"), "string"),),
        ("What is the weather in {city}?", "weather in {city}", "How is the weather in {city}?", "What's the weather like in {city} today?", "Is it raining in {city}?", "how warm is it in {city}?",
         "Tell me the weather in {city}.", "what is the temperature in {city}", "Is it cold in {city} right now?", "Check the weather in {city}", "what's the weather in {city}?", "How's the weather in {city} now?"),
        ("And in {city}?", "and in {city}?", "What about {city}?", "and {city}?", "How about in {city}?"), _city, _weather),
    "time": Kind(
        ("get_time", "get_current_time", "clock", "getTime", "time_in_city", "local_time", "what_time"),
        ("Get the local time in a city", "Current time of a place", "Returns the time in a city", "Look up the time"),
        ((("city", "location", "place", "timezone", "town"), "string"),),
        ("What time is it in {city}?", "time in {city}", "what's the time in {city}", "Tell me the time in {city}.", "current time in {city}", "How late is it in {city}?"),
        ("And in {city}?", "and in {city}?", "What about {city}?", "and {city}?"), _city, _clock),
    "calculator": Kind(
        ("calculate", "calculator", "calc", "evaluate", "compute", "eval_expression", "do_math"),
        ("Evaluate an arithmetic expression", "Calculates an expression", "A calculator", "Compute the value of an expression"),
        ((("expression", "expr", "formula", "input"), "string"),),
        ("What is {expression}?", "{expression}", "Calculate {expression}.", "compute {expression}", "How much is {expression}?", "calculate {expression} please"),
        ("And {expression}?", "and {expression}?", "What about {expression}?"), _expression, _number_result),
    "stock": Kind(
        ("get_stock_price", "stock_price", "get_quote", "quote", "getStockPrice", "share_price"),
        ("Get the price of a stock", "Current stock price", "Returns the price of a share"),
        ((("symbol", "ticker", "stock", "name"), "string"),),
        ("What is the stock price of {symbol}?", "price of {symbol}", "How much is {symbol} stock?", "stock price {symbol}", "Get me the price of {symbol}.", "what does {symbol} cost"),
        ("And {symbol}?", "and {symbol}?", "What about {symbol}?"), lambda rng: {"symbol": rng.choice(SYMBOLS)}, _price),
    "timer": Kind(
        ("set_timer", "timer", "start_timer", "setTimer", "countdown"), ("Set a timer", "Start a timer for some minutes", "Starts a countdown"),
        ((("minutes", "duration", "min", "duration_minutes"), "integer"),),
        ("Set a timer for {minutes} minutes.", "timer {minutes} minutes", "start a timer of {minutes} minutes", "Wake me in {minutes} minutes.", "{minutes} minute timer"),
        ("And one for {minutes} minutes.", "and another for {minutes} minutes"), lambda rng: {"minutes": rng.randint(2, 90)}, _done),
    "light": Kind(
        ("set_light", "light", "set_light_color", "lamp", "change_light", "setLight"), ("Set the color of the light", "Changes the light color", "Control the lamp"),
        ((("color", "colour", "light_color", "value"), "string"),),
        ("Make the light {color}.", "set the light to {color}", "turn the lamp {color}", "Change the light to {color}.", "light {color} please"),
        ("Now {color}.", "and now {color}", "Make it {color}."), lambda rng: {"color": rng.choice(COLORS)}, _done),
    "message": Kind(
        ("send_message", "message", "send_text", "notify", "sendMessage", "text_person"), ("Send a message to a person", "Sends a text", "Send a short message"),
        ((("to", "recipient", "person", "name"), "string"), (("text", "message", "body", "content"), "string")),
        ("Send {to} the message: {text}", "Tell {to}: {text}", "message {to}: {text}", "Text {to}: {text}", "Write to {to}: {text}"),
        ("And to {to}: {text}", "and tell {to}: {text}"),
        lambda rng: {"to": rng.choice(NAMES), "text": " ".join(rng.sample(WORDS, rng.randint(1, 3)))}, _done),
    "convert_money": Kind(
        ("convert_currency", "exchange", "currency", "convert_money", "exchange_money", "convertCurrency"), ("Convert money between currencies", "Exchange rates", "Converts an amount of money"),
        ((("amount", "value", "sum"), "integer"), (("from", "source", "from_currency"), "string"), (("to", "target", "to_currency"), "string")),
        ("Convert {amount} {from} to {to}.", "{amount} {from} in {to}", "How much is {amount} {from} in {to}?", "what are {amount} {from} in {to}", "exchange {amount} {from} to {to}"),
        ("And {amount} {from} in {to}?", "and {amount} {from} to {to}"),
        lambda rng: dict(zip(("amount", "from", "to"), (rng.randint(2, 999), *rng.sample("USD EUR GBP JPY CNY CHF CAD INR".split(), 2)))), _number_result),
}

LETTERS = ("The {p}", "{p}", "{p} to use", "Name of the {p}")
VERBS = "get set run do find use call make read fetch".split()


@dataclass(frozen=True)
class Tool:
    """A kind under one set of names, as one conversation sees it."""

    kind: str
    name: str
    params: dict[str, str]  # slot -> name of the parameter
    schema: dict[str, Any]

    def call(self, values: Values) -> dict[str, Any]:
        return {"type": "function", "function": {"name": self.name, "arguments": {self.params[s]: v for s, v in values.items()}}}


def _make_tool(rng: random.Random, kind: str) -> Tool:
    spec = KINDS[kind]
    name = rng.choice(spec.names) if rng.random() < 0.75 else f"{rng.choice(VERBS)}_{rng.choice(WORDS)}"
    params, properties = {}, {}
    for aliases, json_type in spec.params:
        free = [a for a in aliases if a not in params.values()]
        alias = aliases[0] if rng.random() < 0.45 and aliases[0] in free else rng.choice(free)
        params[aliases[0]] = alias
        properties[alias] = {"type": json_type}
        if rng.random() < 0.4:
            properties[alias]["description"] = rng.choice(LETTERS).format(p=aliases[0])
    required = list(properties)
    if kind == "weather" and rng.random() < 0.3:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.85:
        parameters["required"] = required
    function = {"name": name, "description": rng.choice(spec.about) + rng.choice(("", ".")), "parameters": parameters}
    if rng.random() < 0.06:
        del function["description"]
    return Tool(kind, name, params, {"type": "function", "function": function})


def _tools(rng: random.Random, first: str) -> tuple[Tool, list[dict[str, Any]]]:
    """The tool that is wanted, and the shuffled list that holds it and up to two others."""
    others = rng.sample([k for k in KINDS if k != first], rng.choice((0, 0, 1, 1, 1, 2)))
    tools: list[Tool] = []
    for kind in (first, *others):
        tool = _make_tool(rng, kind)
        while tool.name in [t.name for t in tools]:
            tool = _make_tool(rng, kind)
        tools.append(tool)
    schemas = [t.schema for t in tools]
    rng.shuffle(schemas)
    return tools[0], schemas


def _ask(rng: random.Random, templates: tuple[str, ...], values: Values) -> Message:
    return {"role": "user", "content": phrase(rng, rng.choice(templates), keep_case=True, **values)}


def _call(*calls: dict[str, Any]) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def _key(kind: str, values: Values) -> str:
    return f"tool {kind} {sorted(map(str, values.values()))}"


@task("tool_call", 10, chainable=False)
def tool_call(rng: random.Random) -> Sample:
    """A question that one of the tools answers; some come after a first exchange."""
    kind = rng.choice(list(KINDS) + ["weather", "weather", "time"])
    tool, schemas = _tools(rng, kind)
    values = KINDS[kind].draw(rng)
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages += _exchange(rng, tool, KINDS[kind].asks)
        messages += [_ask(rng, KINDS[kind].next_asks if rng.random() < 0.75 else KINDS[kind].asks, values)]
    else:
        if rng.random() < 0.15:
            messages += draw_sample("small_talk", rng).messages
        messages += [_ask(rng, KINDS[kind].asks, values)]
    messages.append(_call(tool.call(values)))
    return Sample(messages, _key(kind, values), schemas)


def _exchange(rng: random.Random, tool: Tool, asks: tuple[str, ...]) -> list[Message]:
    """Question, call, result, answer."""
    values = KINDS[tool.kind].draw(rng)
    content, answer = KINDS[tool.kind].result(rng, values)
    return [_ask(rng, asks, values), _call(tool.call(values)), {"role": "tool", "content": content}, {"role": "assistant", "content": answer}]


@task("tool_answer", 6, chainable=False)
def tool_answer(rng: random.Random) -> Sample:
    kind = rng.choice(list(KINDS) + ["weather", "weather", "time"])
    tool, schemas = _tools(rng, kind)
    messages = _exchange(rng, tool, KINDS[kind].asks)
    key = f"toolanswer {kind} {messages[-2]['content']} {messages[-1]['content']}"
    if kind in ("timer", "light", "message"):
        key += str(messages[-3]["tool_calls"][0]["function"]["arguments"])
    if rng.random() < 0.15:
        messages += draw_sample("small_talk", rng).messages
    return Sample(messages, key, schemas)


@task("tool_parallel", 5, chainable=False)
def tool_parallel(rng: random.Random) -> Sample:
    """Two cities in one question: two calls, two results, one answer."""
    kind = rng.choice(("weather", "weather", "time"))
    tool, schemas = _tools(rng, kind)
    a, b = rng.sample(CITIES, 2)
    ask = _ask(rng, KINDS[kind].asks, {"city": f"{a} and {b}" if rng.random() < 0.8 else f"{a} and in {b}"})
    messages = [ask, _call(tool.call({"city": a}), tool.call({"city": b}))]
    if rng.random() < 0.5:
        results = [KINDS[kind].result(rng, {"city": city}) for city in (a, b)]
        messages += [{"role": "tool", "content": content} for content, _ in results]
        messages.append({"role": "assistant", "content": " ".join(answer for _, answer in results)})
    return Sample(messages, f"toolpair {a} {b}", schemas)


UNRELATED = ("capitals", "facts", "small_talk", "opposites", "spell", "reverse", "calendar", "translate", "story", "json", "count", "echo", "countries", "facts_zh")


@task("tool_none", 6, chainable=False)
def tool_none(rng: random.Random) -> Sample:
    """Tools are there but the question needs none, or none of them fits."""
    if rng.random() < 0.2:
        wanted = rng.choice(("weather", "time", "stock"))
        offered = rng.choice([k for k in KINDS if k not in (wanted, "calculator")])
        values = KINDS[wanted].draw(rng)
        ask = _ask(rng, KINDS[wanted].asks, values)
        return Sample([ask, {"role": "assistant", "content": REFUSAL}], _key("none " + wanted, values), [_make_tool(rng, offered).schema])
    _, schemas = _tools(rng, rng.choice([k for k in KINDS if k != "calculator"]))
    sample = draw_sample(rng.choice(UNRELATED), rng)
    return Sample(sample.messages, f"none {sample.messages[-2]['content']}", schemas)
