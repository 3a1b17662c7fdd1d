"""The page itself, of gradio's components: what stands where, and which button does what."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from ddpm.report.demo import brush, shown
from ddpm.report.demo.acting import Page, Shown, nothing_yet
from ddpm.report.demo.choices import MOST_IMAGES
from ddpm.report.demo.language import say
from ddpm.report.texts import LANGUAGES

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans CJK SC", "Microsoft YaHei", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
"""Of the system: nothing is fetched."""

AT_ONCE = 16
"""Drawings that wait or go on; further ones wait in gradio's queue."""

PAINT = "#" + bytes(brush.COLOUR).hex()

SPEAK = "language => { document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'; }"
LIGHT_OR_DARK = """theme => {
  const dark = theme === 'dark' || (theme === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.body.classList.toggle('dark', dark);
}"""


def theme() -> Any:
    """How it looks: gradio's own, with as much contrast as small text needs."""
    made = gr.themes.Default(primary_hue="indigo", secondary_hue="indigo", font=FONTS, font_mono=MONO)
    return made.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_cancel_background_fill="*neutral_200",
        button_cancel_background_fill_hover="*neutral_300",
        button_cancel_background_fill_dark="*neutral_700",
        button_cancel_background_fill_hover_dark="*neutral_600",
        button_cancel_text_color="*neutral_900",
        button_cancel_text_color_hover="*neutral_900",
        button_cancel_text_color_dark="*neutral_100",
        button_cancel_text_color_hover_dark="*neutral_100",
    )


class _Texts:
    """Texts of components, which follow the language."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, dict[str, Callable[[str], Any]]]] = []

    def add(self, component: Any, **attributes: Callable[[str], Any]) -> Any:
        self.all.append((component, attributes))
        return component

    def components(self) -> list[Any]:
        return [component for component, _ in self.all]

    def updates(self, language: str) -> list[Any]:
        return [
            gr.update(**{name: make(language) for name, make in attributes.items()})
            for _, attributes in self.all
        ]


def build(page: Page, language: str) -> Any:
    """The page, as gradio's `Blocks`.

    Args:
        page: what it does.
        language: in which it opens, of `LANGUAGES`.
    """
    return _Builder(page, language).blocks


class _Builder:
    def __init__(self, page: Page, language: str):
        self.page = page
        self.opens_in = language
        self.texts = _Texts()
        names = " + ".join(one.name for one in page.opened)
        with gr.Blocks(
            title=say("title", language, {"name": names}),
            analytics_enabled=False,
            delete_cache=(600, 3600),
            fill_width=True,
        ) as self.blocks:
            self._head(names)
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    self._settings()
                    self._tabs()
                with gr.Column(scale=3, min_width=320):
                    self._results()
            self._events()

    # What stands where

    def _made(self, kind: Any, key: str | None = None, info: str | None = None, **settings: Any) -> Any:
        """A component whose label and explanation follow the language."""
        attributes: dict[str, Callable[[str], Any]] = {}
        name = "value" if kind is gr.Button else "label"
        if key is not None:
            attributes[name] = self._text(key)
        if info is not None:
            attributes["info"] = self._text(info)
        for follows in [one for one, value in settings.items() if callable(value)]:
            attributes[follows] = settings.pop(follows)
        first = {one: make(self.opens_in) for one, make in attributes.items()}
        return self.texts.add(kind(**first, **settings), **attributes)

    def _text(self, key: str) -> Callable[[str], str]:
        most = self.page.choices.num_timesteps
        return lambda language: say(key, language, {"most": most, "last": most - 1})

    def _head(self, names: str) -> None:
        def facts(language: str) -> str:
            lines = []
            for one in self.page.opened:
                channels, height, width = one.run.module.image_shape
                T = one.run.module.schedule.num_timesteps  # noqa: N806 - the paper's name
                values = {"height": height, "width": width, "channels": channels, "T": T}
                lines.append(
                    say("run_facts", language, {"name": one.name, "step": f"{one.run.step:,}"} | values)
                )
            return str(shown.heading(say("title", language, {"name": names}), lines))

        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                self._made(gr.HTML, value=facts)
            with gr.Column(scale=2, min_width=320), gr.Row():
                self.language = self._made(
                    gr.Dropdown,
                    "language",
                    choices=[(name, code) for code, name in LANGUAGES.items()],
                    value=self.opens_in,
                    filterable=False,
                    min_width=100,
                )
                self.theme = self._made(
                    gr.Dropdown,
                    "theme",
                    choices=self._choices("theme", ("auto", "light", "dark")),
                    value="auto",
                    filterable=False,
                    min_width=100,
                )

    def _choices(self, group: str, keys: Sequence[str]) -> Callable[[str], list[tuple[str, str]]]:
        return lambda language: [(say(f"{group}_{key}", language), key) for key in keys]

    def _settings(self) -> None:
        choices = self.page.choices
        with gr.Group():
            with gr.Row():
                self.sampler = self._made(
                    gr.Dropdown,
                    "sampler",
                    choices=list(choices.samplers),
                    value=choices.sampler,
                    filterable=False,
                    min_width=120,
                )
                self.steps = self._number("steps", choices.samplers[choices.sampler], "steps_info")
            with gr.Row():
                self.n = self._made(
                    gr.Slider, "n", minimum=1, maximum=MOST_IMAGES, value=choices.num_images, step=1,
                    buttons=[], min_width=120,
                )  # fmt: skip
                self.seed = self._number("seed", 0)
            self.classes: Any = gr.State(())
            if choices.classes:
                info = "classes_info" if choices.scale is None else "classes_info_or_none"
                self.classes = self._made(
                    gr.Dropdown, "classes", info, choices=list(choices.classes), value=[],
                    multiselect=True,
                )  # fmt: skip
            self.scale: Any = gr.State(None)
            if choices.scale is not None:
                self.scale = self._number("scale", choices.scale, "scale_info")

    def _number(self, key: str, value: float, info: str | None = None) -> Any:
        """A field for a number; what does not fit is told by us, in a sentence."""
        return self._made(gr.Number, key, info, value=value, min_width=120)

    def _t(self) -> Any:
        last = self.page.choices.num_timesteps - 1
        return self._made(
            gr.Slider, "t", "t_info", minimum=0, maximum=last, value=last // 2, step=1, buttons=[]
        )

    def _file(self, key: str) -> Any:
        return self._made(gr.File, key, type="binary", height=150)

    def _explained(self, key: str) -> None:
        self._made(gr.Markdown, value=self._text(key))

    def _tabs(self) -> None:
        with gr.Tabs():
            with self._made(gr.Tab, "tab_draw"):
                self.draw = self._button("draw")
            with self._made(gr.Tab, "tab_picture"):
                self._explained("picture_info")
                self.picture = self._file("picture")
                self.as_prepared = gr.HTML()
                self.t = self._t()
                self.vary = self._button("draw_picture")
            with self._made(gr.Tab, "tab_inpaint"):
                self._explained("inpaint_info")
                self.to_paint = self._file("picture")
                self.paint_problem = gr.HTML()
                self.region = self._made(
                    gr.Dropdown,
                    "region",
                    choices=self._choices("region", brush.REGIONS),
                    value=brush.REGIONS[0],
                    filterable=False,
                )
                self.editor = self._made(
                    gr.ImageEditor,
                    "editor",
                    type="numpy",
                    sources=(),
                    transforms=(),
                    layers=False,
                    format="png",
                    brush=gr.Brush(default_size=28, colors=[PAINT], default_color=PAINT, color_mode="fixed"),
                    buttons=[],
                    canvas_size=(brush.SHOWN, brush.SHOWN),
                    visible=False,
                )
                self.inpaint = self._button("draw_inpaint")
            with self._made(gr.Tab, "tab_between"):
                self._explained("between_info")
                self.ends, self.end_seeds, self.end_classes = [], [], []
                with gr.Row():
                    for i, end in enumerate(("first", "last")):
                        with gr.Column(min_width=150):
                            self.ends.append(self._file(f"{end}_picture"))
                            self.end_seeds.append(self._number(f"{end}_seed", i))
                            self.end_classes.append(self._class(f"{end}_class", i))
                self.between_t = self._t()
                self.same_noise = self._made(gr.Checkbox, "same_noise", value=True)
                self.between = self._button("draw_between")
        self.stop = self._made(gr.Button, "stop", variant="stop")

    def _class(self, key: str, i: int) -> Any:
        """The class of an end that is drawn."""
        classes = self.page.choices.classes
        if not classes:
            return gr.State(None)
        return self._made(gr.Dropdown, key, choices=list(classes), value=classes[i % len(classes)])

    def _button(self, key: str) -> Any:
        return self._made(gr.Button, key, variant="primary")

    def _results(self) -> None:
        self.status = gr.HTML(elem_id="status")
        self.point = self._made(
            gr.Slider, "point", minimum=0, maximum=1, value=1, step=1, visible=False, buttons=[],
            elem_id="point",
        )  # fmt: skip
        self.results = gr.HTML(nothing_yet(self.opens_in), elem_id="results")
        self.command = gr.HTML(elem_id="command")
        self.outcome = gr.State(None)

    # What does what

    def _events(self) -> None:
        page = self.page
        typed = [self.sampler, self.steps, self.seed, self.n, self.classes, self.scale]
        buttons = [self.draw, self.vary, self.inpaint, self.between]
        changed = [self.status, self.results, self.point, self.outcome, self.command, *buttons]

        def between(language: str, *values: Any) -> Iterator[Shown]:
            first, last, *rest = values
            seeds, classes, (t, same_noise, *settings) = rest[:2], rest[2:4], rest[4:]
            return page.between(language, (first, last), seeds, classes, t, same_noise, *settings)

        actions: list[tuple[Any, Callable[..., Iterator[Shown]], list[Any]]] = [
            (self.draw, page.draw, []),
            (self.vary, page.vary, [self.picture, self.t]),
            (self.inpaint, page.inpaint, [self.to_paint, self.editor, self.region]),
            (
                self.between,
                between,
                [*self.ends, *self.end_seeds, *self.end_classes, self.between_t, self.same_noise],
            ),
        ]
        going = [
            button.click(
                _streamed(action, len(buttons)),
                [self.language, *own, *typed],
                changed,
                concurrency_id="drawing",
                concurrency_limit=AT_ONCE,
                show_progress="hidden",
                api_visibility="private",
            )
            for button, action, own in actions
        ]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.stop.click(
            lambda language: [shown.status(say("stopped", language)), *_buttons(len(buttons), True)],
            [self.language],
            [self.status, *buttons],
            cancels=going,
            **quiet,
        )
        self.point.input(
            lambda outcome, point, language: page.point(outcome, int(point), language),
            [self.outcome, self.point, self.language],
            [self.results],
            trigger_mode="always_last",
            **quiet,
        )
        self.sampler.change(page.steps_of, [self.sampler], [self.steps], **quiet)
        self.picture.change(
            lambda contents, language: page.prepared(contents, language)[0],
            [self.picture, self.language],
            [self.as_prepared],
            **quiet,
        )
        self.to_paint.change(
            self._to_be_painted, [self.to_paint, self.language], [self.paint_problem, self.editor], **quiet
        )
        self.language.change(
            self._spoken,
            [self.language, self.outcome, self.point],
            [*self.texts.components(), self.status, self.results, self.command],
            **quiet,
        )
        self.language.change(None, [self.language], None, js=SPEAK, api_visibility="private")
        self.theme.change(None, [self.theme], None, js=LIGHT_OR_DARK, api_visibility="private")
        self.blocks.load(None, [self.language], None, js=SPEAK, api_visibility="private")

    def _to_be_painted(self, contents: bytes | None, language: str) -> tuple[str, Any]:
        """The picture on the editor, or why there is none."""
        problem, picture = self.page.prepared(contents, language)
        if picture is None:
            return problem, gr.update(value=None, visible=False)
        pixels = brush.canvas(picture)
        return "", gr.update(
            value={"background": pixels, "layers": [], "composite": pixels},
            visible=True,
            canvas_size=(pixels.shape[1], pixels.shape[0]),
        )

    def _spoken(self, language: str, outcome: Any, point: float) -> list[Any]:
        """Everything in another language."""
        results = self.page.point(outcome, int(point), language)
        return [*self.texts.updates(language), "", results, ""]


def _streamed(action: Callable[..., Iterator[Shown]], buttons: int) -> Callable[..., Iterator[list[Any]]]:
    """An action whose parts go to the page as they come; meanwhile no button begins another."""

    def stream(language: str, *values: Any) -> Iterator[list[Any]]:
        is_first = True
        for now in action(language, *values):
            point = command = outcome = results = gr.skip()
            if now.results is not None:
                results = now.results
            if now.outcome is not None:
                last = now.outcome.points
                point = gr.update(maximum=last, value=last, visible=True)
                outcome, command = now.outcome, now.command
            elif is_first and not now.is_over:
                point, command = gr.update(visible=False), ""
            pressed = _buttons(buttons, now.is_over) if is_first or now.is_over else [gr.skip()] * buttons
            yield [now.status, results, point, outcome, command, *pressed]
            is_first = False

    return stream


def _buttons(n: int, interactive: bool) -> list[Any]:
    return [gr.update(interactive=interactive) for _ in range(n)]
