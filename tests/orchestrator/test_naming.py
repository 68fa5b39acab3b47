"""What outputs are called, and which names are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upx.errors import OutputPathError, UnreadablePictureError
from upx.jobs import Input
from upx.naming import FIELDS, Content, Facts, parse_output, plan_outputs, settle, template_fields

FACTS = Facts(scale=4, backend="span", model="span-x4", seed=7, date="2026-11-21")


def named(path: str) -> Input:
    return Input(name=path, source=Path(path), rel=Path(Path(path).name))


def found(folder: str, rel: str) -> Input:
    return Input(name=f"{folder}/{rel}", source=Path(folder) / rel, rel=Path(rel), found=True)


def targets(inputs, output=None, *, is_folder=False, format=None, content=None):  # noqa: A002
    destination = parse_output(output, is_folder=is_folder)
    extra = {"content": content} if content else {}
    return [plan.target for plan in plan_outputs(inputs, destination, FACTS, format=format, **extra)]


def test_without_an_output_the_name_says_scale_and_model_beside_the_input() -> None:
    assert targets([named("pics/cat.jpeg")]) == [Path("pics/cat_4x_span-x4.jpeg")]


def test_an_input_that_cannot_be_written_again_becomes_png() -> None:
    assert targets([named("cat.tiff")]) == [Path("cat_4x_span-x4.png")]


def test_the_format_asked_for_gives_the_suffix() -> None:
    assert targets([named("cat.png")], format="jpg") == [Path("cat_4x_span-x4.jpg")]


def test_the_suffix_of_a_named_output_gives_the_format() -> None:
    (plan,) = plan_outputs([named("cat.png")], parse_output("big.webp"), FACTS)
    assert (plan.target, plan.format) == (Path("big.webp"), "webp")


def test_a_format_asked_for_wins_over_the_suffix() -> None:
    (plan,) = plan_outputs([named("cat.png")], parse_output("big.bin"), FACTS, format="jpeg")
    assert (plan.target, plan.format) == (Path("big.bin"), "jpeg")


@pytest.mark.parametrize(("output", "is_folder"), [("out/", False), ("out", True)])
def test_a_folder_keeps_the_tree_of_the_folder_that_was_named(output, is_folder) -> None:
    inputs = [found("in", "a.png"), found("in", "sub/a.png"), named("else/b.png")]
    assert targets(inputs, output, is_folder=is_folder) == [
        Path("out/a_4x_span-x4.png"),
        Path("out/sub/a_4x_span-x4.png"),
        Path("out/b_4x_span-x4.png"),
    ]


def test_every_field_of_a_template_is_filled() -> None:
    template = "-".join(f"{{{field}}}" for field in FIELDS if field not in {"dir", "rel", "ext"}) + "{ext}"
    about = Content(width=40, height=80, hash="0123456789ab")
    (target,) = targets([named("in/cat.png")], template, content=lambda _: about)
    assert target == Path("cat-1-4-40-80-span-span-x4-7-2026-11-21-0123456789ab.png")


def test_formats_of_fields_are_pythons() -> None:
    assert targets([named("a.png"), named("b.png")], "{index:03}_{scale:.1f}{ext}") == [
        Path("001_4.0.png"),
        Path("002_4.0.png"),
    ]


def test_dir_and_rel_make_folders() -> None:
    (plan,) = targets([found("in", "sub/a.png")], "{dir}/big/{stem}{ext}")
    assert plan == Path("in/sub/big/a.png")
    (plan,) = targets([found("in", "sub/a.png")], "out/{rel}/{stem}{ext}")
    assert plan == Path("out/sub/a.png")


def test_content_is_read_only_for_templates_that_ask_for_it() -> None:
    asked: list[Input] = []

    def content(item):
        asked.append(item)
        return Content()

    targets([named("a.png")], "{stem}_big{ext}", content=content)
    assert asked == []
    targets([named("a.png")], "{stem}_{width}{ext}", content=content)
    assert len(asked) == 1


def test_a_picture_that_cannot_be_read_for_its_name_fails_alone() -> None:
    def content(item):
        if item.name == "bad.png":
            raise UnreadablePictureError("bad.png: not a picture", hint="check it")
        return Content(width=8)

    bad, good = plan_outputs(
        [named("bad.png"), named("b.png")], parse_output("{stem}{width}{ext}"), FACTS, content=content
    )
    assert bad.target is None
    assert isinstance(bad.input.error, UnreadablePictureError)
    assert good.target == Path("b8.png")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("{stam}.png", "no field {stam}"),
        ("{stem", "malformed"),
        ("{stem!z}.png", "malformed|cannot be filled"),
        ("{stem.__class__}.png", "no field"),
        ("{}.png", "no field"),
        ("{stem:d}.png", "cannot be filled"),
        ("big", "has no suffix and is no folder"),
        ("big.tiff", ".tiff cannot be written"),
        ("{stem}.gif", ".gif cannot be written"),
    ],
)
def test_an_output_that_cannot_be_is_refused_with_the_next_step(output, said) -> None:
    with pytest.raises(OutputPathError, match=said) as caught:
        targets([named("a.png")], output)
    assert caught.value.hint


@pytest.mark.parametrize("output", ["one.png", "-", "{model}{ext}"])
def test_several_inputs_into_one_output_are_refused(output) -> None:
    with pytest.raises(OutputPathError, match="2 inputs would go into"):
        targets([named("a.png"), named("b.png")], output)


def test_two_inputs_that_would_become_one_output_are_both_named() -> None:
    with pytest.raises(OutputPathError, match=r"x/a\.png and y/a\.png would both become") as caught:
        targets([named("x/a.png"), named("y/a.png")], "out/")
    assert "{index}" in caught.value.hint


def test_an_output_that_is_any_input_is_refused_even_through_a_link(tmp_path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(OutputPathError, match="would overwrite the input"):
        targets([named(str(tmp_path / "a.png"))], str(tmp_path / "b.png"))
    with pytest.raises(OutputPathError, match="would overwrite the input"):
        targets([named("a.png"), named("b.png")], "{dir}/{stem}{ext}")


def test_a_name_of_over_255_bytes_is_refused_and_one_of_255_is_taken() -> None:
    ending = "_4x_span-x4.png"
    assert targets([named("n" * (255 - len(ending)) + ".png")])
    with pytest.raises(OutputPathError, match="255 bytes"):
        targets([named("n" * (256 - len(ending)) + ".png")])
    with pytest.raises(OutputPathError, match="255 bytes"):
        targets([named("ü" * 125 + ".png")])  # 250 bytes in UTF-8


def test_outputs_of_an_earlier_run_in_a_searched_folder_are_left_out() -> None:
    inputs = [found("in", "a.png"), found("in", "a_4x_span-x4.png"), found("in", "b.png")]
    assert targets(inputs) == [Path("in/a_4x_span-x4.png"), Path("in/b_4x_span-x4.png")]


def test_an_input_with_an_error_gets_no_target_and_does_not_count() -> None:
    bad = Input("gone.png", Path("gone.png"), Path("gone.png"), error=UnreadablePictureError("gone.png: no such file"))
    assert targets([bad, named("a.png")], "big.png") == [None, Path("big.png")]


def test_standard_input_is_named_stdin() -> None:
    assert targets([Input("stdin", None, Path("stdin"))]) == [Path("stdin_4x_span-x4.png")]


def test_standard_output_has_no_target_and_the_inputs_format() -> None:
    (plan,) = plan_outputs([named("a.webp")], parse_output("-"), FACTS)
    assert (plan.target, plan.format) == (None, "webp")


def plans(*names: str):
    return plan_outputs([named(name) for name in names], parse_output("out/"), FACTS)


def test_outputs_that_exist_are_overwritten_skipped_renamed_or_refused() -> None:
    there = {Path("out/a_4x_span-x4.png"), Path("out/a_4x_span-x4_2.png")}

    def ends(how):
        return settle(plans("a.png", "b.png"), how, exists=there.__contains__)

    assert [plan.skip for plan in ends("overwrite")] == [False, False]
    assert [plan.skip for plan in ends("skip")] == [True, False]
    assert [plan.target for plan in ends("rename")] == [Path("out/a_4x_span-x4_3.png"), Path("out/b_4x_span-x4.png")]
    with pytest.raises(OutputPathError, match="exists"):
        ends("error")


def test_a_renamed_output_never_takes_the_name_of_another() -> None:
    inputs = [named("a.png"), named("a_2.png")]
    planned = plan_outputs(inputs, parse_output("out/{stem}{ext}"), FACTS)
    settled = settle(planned, "rename", exists={Path("out/a.png")}.__contains__)
    assert [plan.target for plan in settled] == [Path("out/a_3.png"), Path("out/a_2.png")]


@given(st.text(max_size=40))
def test_any_template_is_understood_or_refused(template) -> None:
    try:
        used = template_fields(template)
    except OutputPathError:
        return
    assert used <= set(FIELDS)


@given(st.lists(st.text("ab/", min_size=1, max_size=4).filter(lambda text: text.strip("/")), min_size=1, max_size=6))
def test_outputs_never_collide_with_each_other_or_with_inputs(names) -> None:
    inputs = [named(f"{name.strip('/')}.png") for name in dict.fromkeys(names)]
    try:
        planned = targets(inputs, "{dir}/{stem}{ext}.{index}.png")
    except OutputPathError:
        return
    assert len(set(planned)) == len(inputs)
    assert not set(planned) & {item.source for item in inputs}
