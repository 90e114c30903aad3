import numpy as np
import pytest

from stablevelocity.pretrained.scenes import (
    CELL,
    COLORS,
    DIRECTIONS,
    FRAMES,
    SIZE,
    SPEED,
    TASKS,
    Object,
    Scene,
    digit_images,
    draw_scene,
    draw_video_scene,
    render,
    render_video,
)


def cells(image):
    """Brightness of the four cells in reading order."""
    parts = image.max(-1).reshape(2, CELL, 2, CELL).sum((1, 3)).ravel()
    return parts > 0


@pytest.mark.parametrize(
    "scene, caption",
    [
        (Scene("single_object", (Object(7),)), "a seven"),
        (Scene("counting", (Object(6, count=3),)), "three sixes"),
        (Scene("colors", (Object(4, color="red"),)), "a red four"),
        (Scene("two_object", (Object(2), Object(5))), "a two and a five"),
        (Scene("position", (Object(2), Object(5)), "left of"), "a two left of a five"),
        (Scene("color_attr", (Object(2, color="red"), Object(5, color="blue"))), "a red two and a blue five"),
        (Scene("colors", (Object(4, color="cyan"),), moving="up"), "a cyan four moving up"),
    ],
)
def test_the_caption_says_what_the_scene_is(scene, caption):
    assert scene.caption == caption


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_shows_as_many_objects_as_it_says(task):
    generator = np.random.default_rng(0)
    for _ in range(20):
        scene = draw_scene(task, generator)
        assert cells(render(scene, generator)).sum() == sum(thing.count for thing in scene.objects)


@pytest.mark.parametrize(
    "relation, before",
    [("left of", lambda a, b: a[1] < b[1]), ("above", lambda a, b: a[0] < b[0])],
)
def test_the_first_object_stands_where_the_relation_says(relation, before):
    generator = np.random.default_rng(0)
    scene = Scene("position", (Object(1, color="red"), Object(8, color="green")), relation)
    for _ in range(10):
        image = render(scene, generator).astype(int)
        red = np.argwhere(image[:, :, 0] > image[:, :, 1]).mean(0)
        green = np.argwhere(image[:, :, 1] > image[:, :, 0]).mean(0)
        assert before(red, green)


def test_a_video_moves_as_it_says_and_stays_inside():
    generator = np.random.default_rng(0)
    for _ in range(20):
        scene = draw_video_scene(generator)
        video = render_video(scene, generator).max(-1).astype(float)
        assert video.shape == (FRAMES, SIZE, SIZE)
        # A digit that left the frame would lose brightness.
        assert np.ptp(video.sum((1, 2))) == 0
        centres = np.array([np.argwhere(frame).mean(0) for frame in video])
        np.testing.assert_allclose(
            np.diff(centres, axis=0), [np.array(DIRECTIONS[scene.moving]) * SPEED] * (FRAMES - 1)
        )


def test_held_out_digits_are_not_among_the_trained_ones():
    for trained, held_out in zip(digit_images("train"), digit_images("held_out"), strict=True):
        assert not {image.tobytes() for image in held_out} & {image.tobytes() for image in trained}


def test_a_coloured_digit_has_its_colour():
    generator = np.random.default_rng(0)
    for color, value in COLORS.items():
        image = render(Scene("colors", (Object(3, color=color),)), generator).astype(float)
        brightest = image.reshape(-1, 3)[image.sum(-1).argmax()]
        np.testing.assert_allclose(brightest / brightest.max(), np.array(value) / max(value), atol=0.02)
