"""Bar charts, drawn on the server as SVG: no script, no outside asset, readable in light and in dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# In the chart's own units; it is stretched to the width it is given, text beside it is not.
_WIDTH, _HEIGHT = 720.0, 180.0
_GAP = 0.22  # of a bar's room


@dataclass(frozen=True)
class Series:
    """One colour of the bars. `name` is also the end of its CSS class."""

    name: str
    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Stacked bars over labels of the same number. `unit` stands before (`$`) the figures of the axis."""

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    unit: str = ""
    nothing: str = "Nothing yet."

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(any(series.values) for series in self.series)

    @property
    def view_box(self) -> str:
        """The room of the drawing."""
        return f"0 0 {_WIDTH:g} {_HEIGHT:g}"

    @property
    def top(self) -> float:
        """What the highest line of the axis stands for: a round number that no bar passes, with a round half."""
        highest = max((sum(stack) for stack in self._stacks()), default=0.0) or 1.0
        magnitude = 10.0 ** math.floor(math.log10(highest))
        return next(step * magnitude for step in (2, 4, 6, 8, 10) if step * magnitude >= highest)

    @property
    def axis(self) -> list[str]:
        """The figures beside the lines, from the top."""
        return [self.shown(self.top), self.shown(self.top / 2), self.shown(0)]

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Rectangles, from left to right and from the bottom up, with what each says when pointed at."""
        room = _WIDTH / max(1, len(self.labels))
        drawn = []
        for n, label in enumerate(self.labels):
            y = _HEIGHT
            for series in self.series:
                height = series.values[n] / self.top * _HEIGHT
                y -= height
                if height:
                    drawn.append(
                        {
                            "x": f"{n * room + room * _GAP / 2:.2f}",
                            "y": f"{y:.2f}",
                            "width": f"{room * (1 - _GAP):.2f}",
                            "height": f"{height:.2f}",
                            "name": series.name,
                            "says": f"{label}: {self.shown(series.values[n])} {series.label}",
                        }
                    )
        return drawn

    @property
    def legend(self) -> list[dict[str, str]]:
        """What each colour is, with its sum."""
        return [
            {
                "name": series.name,
                "label": series.label,
                "total": self.shown(float(sum(series.values))),
            }
            for series in self.series
        ]

    @property
    def ends(self) -> tuple[str, str, str]:
        """The labels below the drawing: first, middle, last."""
        return self.labels[0], self.labels[len(self.labels) // 2], self.labels[-1]

    def shown(self, value: float) -> str:
        """A value as the axis writes it."""
        digits = 2 if self.unit and value < 100 and value != int(value) else 0
        if not self.unit and value != int(value):
            digits = 1
        return f"{self.unit}{value:,.{digits}f}"

    def _stacks(self) -> list[tuple[float, ...]]:
        return list(zip(*(series.values for series in self.series), strict=True))
