from pathlib import Path

import pytest

from sam3d_label.charts import TEAL, add_legend, new_chart, plot_mean, set_title


@pytest.mark.parametrize("panels", [1, 2])
def test_charts_have_one_style(panels: int) -> None:
    figure, drawn = new_chart(panels, sharey=True)
    assert len(drawn) == panels
    assert figure.get_figheight() == 4.4
    assert not any(axes.spines["top"].get_visible() for axes in drawn)


def test_a_mean_is_one_line_of_the_legend_and_titles_are_plain_text(tmp_path: Path) -> None:
    figure, (axes,) = new_chart()
    plot_mean(axes, [1, 2], [0.5, 0.6], ([0.4, 0.5], [0.6, 0.7]), color=TEAL, label="mean")
    set_title(axes, "5$ and 6$")
    add_legend(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean"]
    figure.savefig(tmp_path / "chart.png")


def test_only_one_module_makes_charts_of_lines() -> None:
    """`evaluation/pictures.py` draws images on a dark ground and keeps a style of its own."""
    root = Path(__file__).parents[1]
    files = [path for folder in ("sam3d_label", "benchmarks") for path in (root / folder).rglob("*.py")]
    found = {path.name for path in files if "matplotlib.figure" in path.read_text(encoding="utf-8")}
    assert found == {"charts.py", "pictures.py"}
