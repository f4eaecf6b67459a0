"""Charts as inline SVG that fit any width.

A chart has a fixed height in px and a width of 100 %: places across are percentages, so the text keeps its
size on a telephone and on a wide screen, which a scaled viewBox would not. Colours come from classes that the
page's style sheet sets, for light and dark alike. Every mark carries its values in a <title>, which browsers
show on hover.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evolve.page import Html, join, tag

_LARGEST = 1e100  # beyond it differences and squares overflow: nothing that a chart is for
_LINE_POINTS = 150  # more cannot be told apart at the width of a page, and 300 trials must stay a small file
_CLOUD_POINTS = 4000

Point = tuple[float, float]


def drawable(value: object) -> float | None:
    """The value as a number that a chart can place; None for NaN, infinities and whatever is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None  # NaN compares false


def short(value: object, digits: int = 4) -> str:
    """A number for a reader: at most `digits` significant ones; an en dash where there is none.

    >>> short(0.000012), short(1250.0), short(None), short(0.30000000000000004)
    ('1.2e-5', '1250', '–', '0.3')
    """
    number = drawable(value)
    if number is None:
        return "–"
    text = f"{number:.{digits}g}"
    if "e" in text and 1e3 <= abs(number) < 1e6:
        text = f"{number:.0f}"
    mantissa, mark, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if mark else text


def fixed(value: object) -> str:
    """A fitness for a reader: four decimals, so that a column lines up; `short` where they say nothing.

    >>> fixed(0.4765), fixed(0.00001), fixed(None)
    ('0.4765', '1e-5', '–')
    """
    number = drawable(value)
    if number is None or not (number == 0 or 1e-3 <= abs(number) < 1e3):
        return short(value)
    return f"{number:.4f}"


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low: value at the left or lower end.
        high: value at the other end, more than `low`.
        log: places go by the logarithm; then `low` is above 0.
        whole: ticks at whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, log: bool = False, whole: bool = False) -> "Axis":
        """An axis that holds all the values with some air; any axis at all if there are none.

        Values that a log axis cannot show (0 and less) are left out of account.
        """
        kept = [value for value in values if value > 0 or not log]
        low, high = (min(kept), max(kept)) if kept else (0.1, 1.0)
        if log:
            air = max((high / low) ** 0.04, 1.05)
            return cls(low / air, high * air, log=True)
        spread = high - low
        if spread <= 1e-9 * max(abs(low), abs(high), 1e-9):
            spread = max(abs(high), 1e-3)
        return cls(low - 0.05 * spread, high + 0.05 * spread, whole=whole)

    def place(self, value: float) -> float:
        """Where a value lies, in [0, 1] from low to high; values outside go to the nearer end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return min(max((self._scaled(max(value, self.low)) - low) / (high - low), 0.0), 1.0)

    def extend(self, value: float) -> float:
        """Where a value lies, 0 at low and 1 at high, and a little outside for any value beyond them."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = self._scaled(max(value, 1e-300) if self.log else value)
        return min(max((scaled - low) / (high - low), -0.1), 1.1)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def ticks(self, most: int = 6) -> list[float]:
        """At most `most` round values within the axis, ascending."""
        if not self.log:
            return self._linear_ticks(most)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for mantissas in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            every = [m * 10.0**power for power in range(first, last + 1) for m in mantissas]
            inside = [float(f"{value:.3g}") for value in every if self.low <= value <= self.high]
            if 2 <= len(inside) <= most:
                return inside
            if len(inside) < 2:
                return self._linear_ticks(most)
        step = math.ceil((last - first + 1) / most)
        powers = [10.0**power for power in range(first, last + 1) if power % step == 0]
        return [value for value in powers if self.low <= value <= self.high]

    def _linear_ticks(self, most: int) -> list[float]:
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        steps = [mantissa * power for mantissa in (1, 2, 5, 10, 20)]
        choices = [self._multiples(max(step, 1.0) if self.whole else step) for step in steps]
        return next((ticks for ticks in choices if len(ticks) <= most), choices[-1])

    def _multiples(self, step: float) -> list[float]:
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


@dataclass
class Chart:
    """A chart being drawn: rules and lines lie under the marks, marks in the order they came.

    Attributes:
        x: axis across.
        y: axis upward.
        label: what the chart shows, for screen readers.
        x_name: written under the axis across; "" leaves it out.
        y_name: written above the axis upward; "" leaves it out.
        height: of the plot without its labels, px.
        x_ticks: at most so many.
        y_ticks: at most so many.
        x_names: written slantwise under the whole numbers 0, 1, … of the axis across, instead of ticks.
        y_names: (value, word) instead of ticks upward.
    """

    x: Axis
    y: Axis
    label: str
    x_name: str = ""
    y_name: str = ""
    height: int = 270
    x_ticks: int = 6
    y_ticks: int = 6
    x_names: Sequence[str] = ()
    y_names: Sequence[tuple[float, str]] = ()
    _lines: list[Html] = field(default_factory=list, init=False)
    _marks: list[Html] = field(default_factory=list, init=False)

    def line(
        self, points: Sequence[Point], css: str, title: str | None = None, *, steps: bool = False
    ) -> None:
        """Join points; `steps` goes level until the next point, as a best so far does."""
        if not points:
            return
        stride = math.ceil(len(points) / _LINE_POINTS)
        kept = list(points[::stride])
        if kept[-1] != points[-1]:
            kept.append(points[-1])
        path = ""
        for point in points if steps else kept:
            x, y = self._thousandths(point)
            path += (f"H{x}V{y}" if steps else f"L{x} {y}") if path else f"M{x} {y}"
        path += "h.1" if len(points) == 1 else ""  # a single point shows as a round cap
        self._lines.append(tag("path", tag("title", title) if title else None, d=path, class_=css))

    def cloud(self, points: Sequence[Point], css: str) -> None:
        """Many points without values of their own, at most 4,000 of them, evenly taken."""
        stride = max(math.ceil(len(points) / _CLOUD_POINTS), 1)
        places = (self._thousandths(point) for point in points[::stride])
        path = "".join(f"M{x} {y}h.1" for x, y in places)
        if path:
            self._lines.append(tag("path", d=path, class_=css))

    def frame(self, low: Point, high: Point, css: str, title: str) -> None:
        """The outline of a rectangle between two corners; what lies beyond the axes is cut off."""
        left, right = (1000 * self.x.extend(point[0]) for point in (low, high))
        bottom, top = (1000 * (1 - self.y.extend(point[1])) for point in (low, high))
        path = f"M{left:.1f} {bottom:.1f}H{right:.1f}V{top:.1f}H{left:.1f}Z"
        self._lines.append(tag("path", tag("title", title), d=path, class_=css))

    def rule(self, y: float, title: str) -> None:
        """A level line over the whole width."""
        height = self._down(y)
        line = tag("line", tag("title", title), x1="0", x2="100%", y1=height, y2=height, class_="rule")
        self._marks.insert(0, line)

    def band(self, low: float, high: float, css: str, title: str) -> None:
        """An upright band behind all else, from one value across to another."""
        left, right = 100 * self.x.place(low), 100 * self.x.place(high)
        shape = tag(
            "rect",
            tag("title", title),
            x=f"{left:.2f}%",
            y="0",
            width=f"{max(right - left, 0.5):.2f}%",
            height=self.height,
            class_=css,
        )
        self._marks.insert(0, shape)

    def dot(self, point: Point, title: str, *, strength: float = 1.0) -> None:
        """A plain point; `strength` in [0, 1] is its opacity."""
        opacity = f"{strength:.2f}" if strength < 1 else None
        self._marks.append(
            tag(
                "circle",
                tag("title", title),
                cx=self._across(point[0]),
                cy=self._down(point[1]),
                r="4",
                class_="dot",
                fill_opacity=opacity,
            )
        )

    def mark(self, point: Point, kind: str, title: str, *, css: str | None = None) -> None:
        """A shape of `page.MARKS`: "best", "start", "failed", "below", "dot"; `css`: its class if not that."""
        shape = tag(
            "use", href=f"#mark-{kind}", x=self._across(point[0]), y=self._down(point[1]), class_=css or kind
        )
        self._marks.append(tag("g", tag("title", title), shape))

    def render(self) -> Html:
        """The chart as a block element."""
        lines = tag(
            "svg",
            *self._lines,
            class_="lines",
            viewBox="0 0 1000 1000",
            preserveAspectRatio="none",
            width="100%",
            height=self.height,
        )
        parts = [self._grid(), lines if self._lines else None, *self._marks]
        drawing = tag("svg", *parts, height=self.height, role="img", aria_label=self.label)
        return tag("div", drawing, class_="plot")

    def _grid(self) -> Html:
        parts: list[Html] = []
        upward = self.y_names or [(value, short(value)) for value in self.y.ticks(self.y_ticks)]
        for value, word in upward:
            height = self._down(value)
            parts.append(tag("line", x1="0", x2="100%", y1=height, y2=height, class_="grid"))
            parts.append(tag("text", word, x="-8", y=f"{float(height) + 4:.1f}", class_="end"))
        parts.append(tag("line", x1="0", x2="100%", y1=self.height, y2=self.height, class_="base"))
        for number, name in enumerate(self.x_names):
            across = self._across(float(number))
            parts.append(tag("line", x1=across, x2=across, y1="0", y2=self.height, class_="upright"))
            label = tag("text", name, transform="rotate(-38)", class_="end")
            parts.append(tag("svg", label, x=across, y=self.height + 14, class_="slant"))
        for value in () if self.x_names else self.x.ticks(self.x_ticks):
            across = self._across(value)
            parts.append(tag("line", x1=across, x2=across, y1=self.height, y2=self.height + 4, class_="base"))
            parts.append(tag("text", short(value), x=across, y=self.height + 18, class_="middle"))
        if self.x_name:
            parts.append(tag("text", self.x_name, x="100%", y=self.height + 36, class_="end"))
        if self.y_name:
            parts.append(tag("text", self.y_name, x="-44", y="-11"))
        return join(parts)

    def _across(self, value: float) -> str:
        return f"{100 * self.x.place(value):.2f}%"

    def _down(self, value: float) -> str:
        return f"{self.height * (1 - self.y.place(value)):.1f}"

    def _thousandths(self, point: Point) -> tuple[str, str]:
        x, y = 1000 * self.x.place(point[0]), 1000 * (1 - self.y.place(point[1]))
        return f"{x:.1f}", f"{y:.1f}"


def legend(entries: Iterable[tuple[str, str, str]]) -> Html:
    """A key to the marks.

    Args:
        entries: (kind, css class, text): kind is a shape of `page.MARKS`, or "line" or "rule".
    """
    return tag("ul", *(tag("li", _sample(kind, css), text) for kind, css, text in entries), class_="legend")


def _sample(kind: str, css: str) -> Html:
    if kind == "line":
        stroke = tag("g", tag("path", d="M0 7H22", class_=css), class_="lines")
        return tag("svg", stroke, width="22", height="14", aria_hidden="true")
    if kind == "rule":
        dashes = tag("line", x1="0", x2="22", y1="7", y2="7", class_=css)
        return tag("svg", dashes, width="22", height="14", aria_hidden="true")
    return tag(
        "svg",
        tag("use", href=f"#mark-{kind}", x="8", y="7", class_=css),
        width="16",
        height="14",
        aria_hidden="true",
    )


def range_bar(axis: Axis, start: float | None, best: float | None) -> Html:
    """Where two values lie in a range: a line with a ring at the start and a diamond at the best."""
    marks = [tag("line", x1="0", x2="100%", y1="9", y2="9")]
    for kind, value in (("start", start), ("best", best)):
        if value is not None:
            place = f"{100 * axis.place(value):.2f}%"
            shape = tag("use", href=f"#mark-{kind}", x=place, y="9", class_=kind)
            marks.append(tag("g", tag("title", f"{kind} {short(value, 5)}"), shape))
    drawing = tag("svg", *marks, role="img", aria_label=f"start {short(start)}, best {short(best)}")
    low, high = tag("span", short(axis.low, 3)), tag("span", short(axis.high, 3))
    return tag("div", low, drawing, high, class_="range")
