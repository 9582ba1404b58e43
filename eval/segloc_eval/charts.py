"""Bar charts and loss curves as transparent PNG: greys and hues that read on white and on black."""

import io

from matplotlib.figure import Figure

INK = "#7d8590"
HUES = ("#2f81d8", "#e0823d", "#3fa45b", "#b05fc7", "#d2495c", "#8a8f98")
LEAST_AXIS = 1.0  # differences of hundredths shall not look like victories


def bars(groups: list[str], series: dict[str, list[float | None]], unit: str, tall: bool = False) -> bytes:
    """Grouped bars: one group per name in `groups`, one bar per entry of `series` (None: no bar)."""
    size = (6.2, 0.9 + 0.2 * len(groups) * (len(series) + 0.6)) if tall else (6.2, 3.0)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    thick = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        at = [place + (number - (len(series) - 1) / 2) * thick for place in range(len(groups))]
        lengths = [value or 0.0 for value in values]
        draw = axes.barh if tall else axes.bar
        drawn = draw(at, lengths, thick * 0.92, label=_plain(name), color=HUES[number % len(HUES)])
        texts = ["" if value is None else f"{value:.1f}" for value in values]
        axes.bar_label(drawn, texts, padding=2, fontsize=8, color=INK)
    if tall:
        axes.set_yticks(range(len(groups)), [_plain(name) for name in groups])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.margins(x=0.08)
        axes.set_xlim(0, max(LEAST_AXIS, axes.get_xlim()[1]))
    else:
        axes.set_xticks(range(len(groups)), [_plain(name) for name in groups])
        axes.set_ylabel(unit)
        axes.margins(y=0.16)
        axes.set_ylim(0, max(LEAST_AXIS, axes.get_ylim()[1]))
    return _png(figure, axes)


def curves(series: dict[str, list[float]], steps_in_mean: int) -> bytes:
    """Training loss per step, one line each, as a running mean over `steps_in_mean` steps."""
    figure = Figure(figsize=(6.2, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(series.items()):
        window = max(1, min(steps_in_mean, len(values)))
        smooth = [sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]
        hue = HUES[number % len(HUES)]
        axes.plot(range(1, len(smooth) + 1), smooth, label=_plain(name), color=hue, linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    return _png(figure, axes)


def _plain(name: str) -> str:
    """The name without matplotlib's mathematics."""
    return name.replace("$", r"\$")


def _png(figure: Figure, axes: object) -> bytes:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    legend.set_zorder(0)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, transparent=True, metadata={"Software": None})
    return buffer.getvalue()
