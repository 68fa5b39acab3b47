"""VARSR computes what upstream computes: part by part, and whole, by its path for 512 pixels and by its tiles.

``varsr_samples.json`` holds a few hundred values of upstream's run on weights that a recipe makes; the golden files
hold all of them, and those of a smaller network scale by scale.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from test_varsr import SMALL, upscale, weights_of
from test_varsr import kit as kit  # noqa: PLC0414  a fixture of this module too

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upx.config import Settings

    Arrays = Mapping[str, np.ndarray]
    Kit = Callable[..., dict[str, Any]]

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = json.loads((ROOT / "tests" / "data" / "varsr_samples.json").read_text(encoding="utf-8"))
MID = {"depth": 2, "width": 128, "heads": 2, "vae_width": 32}
# An order of additions of its own is allowed; more is not. Relative to the largest value.
CLOSE = 1e-5
# Of MID: places of a tile's latent, and its channels.
SIDE, CHANNELS = 32, 32
SCALES = range(6)


@pytest.fixture(scope="module")
def mid_files(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return weights_of(MID, kit, tmp_path_factory.mktemp("mid"))


@pytest.fixture(scope="module")
def square(kit: Kit, mid_files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The 512 path on the picture of the samples."""
    path = tmp_path_factory.mktemp("picture") / "picture.npy"
    with Image.open(io.BytesIO(base64.b85decode(SAMPLES["picture_png_base85"]))) as picture:
        np.save(path, np.array(picture))
    return kit("mid", files=mid_files, picture=str(path), tiled=False)


@pytest.fixture(scope="module")
def mid(shared: Path) -> Arrays:
    with np.load(shared / "golden" / "varsr" / "mid_golden.npz") as golden:
        return dict(golden)


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Arrays:
    with np.load(shared / "golden" / "varsr" / "tiny_golden.npz") as golden:
        return dict(golden)


def tiny_run(do: str, shared: Path, kit: Kit, folder: Path) -> dict[str, Any]:
    golden, config = shared / "golden" / "varsr", folder / "config.json"
    config.write_text(json.dumps(SMALL))
    files = {"config": config, "var": golden / "tiny_var.safetensors", "vqvae": golden / "tiny_vqvae.safetensors"}
    return kit(do, golden=str(golden / "tiny_golden.npz"), files={role: str(path) for role, path in files.items()})


@pytest.fixture(scope="module")
def parts(shared: Path, kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_run("parts", shared, kit, tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def small(shared: Path, kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_run("small", shared, kit, tmp_path_factory.mktemp("small"))


def assert_close(found: np.ndarray, golden: np.ndarray, bound: float = CLOSE) -> None:
    assert found.shape == golden.shape
    scale = max(1.0, float(np.abs(golden.astype(np.float64)).max()))
    assert np.abs(found.astype(np.float64) - golden).max() <= bound * scale


def assert_levels(found: np.ndarray, golden: np.ndarray, *, share: float, most: int) -> None:
    off = np.abs(found.astype(int) - golden)
    assert off.max() <= most
    assert (off > 0).mean() <= share


# ---------------------------------------------------------------------------------------------- samples


@pytest.mark.timeout(300)
def test_upstream_s_run_is_repeated_in_every_sampled_value(square: dict[str, Any]) -> None:
    (indices,) = square["idx"]
    assert [[place, indices[place]] for place, _ in SAMPLES["codes"]] == SAMPLES["codes"]
    windows = {
        "latent": square["latents"][0],
        "conditioner": square["con"][:, 10:14, 10:14],
        "image": square["image"][:, 192:256, 192:256],
    }
    for name, found in windows.items():
        places = tuple(np.array(SAMPLES[name])[:, :3].astype(int).T)
        assert_close(found[places], np.array(SAMPLES[name])[:, 3], 2 * CLOSE)
    places = np.array(SAMPLES["bytes"])
    assert_levels(square["out"][160:352, 160:352][tuple(places[:, :3].T)], places[:, 3], share=0.02, most=3)


# ---------------------------------------------------------------------------------------------- parts


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "con.out", "blk.attn_out", "blk.ffn_out", "blk.out", "blk0.out", "head.out", "ref.time_embed", "ref.net_out",
        "vae.recon_pm1", "vae.dec_probe_out", "vae.var_input",
    ],
)  # fmt: skip
def test_a_part_gives_what_upstream_s_gives(parts: Arrays, tiny: Arrays, name: str) -> None:
    assert_close(parts[name], tiny[name])


@pytest.mark.shared
def test_a_picture_is_resized_as_upstream_resizes_it(parts: Arrays, tiny: Arrays) -> None:
    np.testing.assert_array_equal(parts["resized"], tiny["in0.resized_u8"])


@pytest.mark.shared
def test_the_rotary_table_is_upstream_s(parts: Arrays, tiny: Arrays) -> None:
    assert_close(parts["rope"], np.stack([tiny["rope.freqs_re"], tiny["rope.freqs_im"]]))


@pytest.mark.shared
def test_the_refiner_s_guidance_is_upstream_s_for_noise_and_leaves_the_variance(parts: Arrays, tiny: Arrays) -> None:
    assert_close(parts["ref.guided"], tiny["ref.net_cfg_out"][:6])


@pytest.mark.shared
@pytest.mark.parametrize(("cfg", "rows"), [(6, 6), (0, 6), (1, 12)])
def test_the_refiner_s_samples_are_upstream_s_unguided_where_cfg_is_1(
    parts: Arrays, tiny: Arrays, cfg: int, rows: int
) -> None:
    assert_close(parts[f"ref.sample.cfg{cfg}.out"], tiny[f"ref.sample.cfg{cfg}.out"][:rows])


@pytest.mark.shared
@pytest.mark.parametrize("steps", [4, 10])
def test_the_refiner_s_schedule_is_upstream_s_in_more_digits_than_it_is_used_in(
    shared: Path, parts: Arrays, steps: int
) -> None:
    files = {4: ("tiny_config.json", "refiner_schedule"), 10: ("full_facts.json", "refiner_schedule_10")}
    name, key = files[steps]
    golden = json.loads((shared / "golden" / "varsr" / name).read_text())[key]
    columns = parts[f"schedule{steps}"].T
    assert columns[0].tolist() == golden["timestep_map"]
    remaining = np.array(golden["alphas_cumprod"])
    np.testing.assert_allclose(columns[1], np.sqrt(1 / remaining), rtol=1e-8)
    np.testing.assert_allclose(columns[2], np.sqrt(1 / remaining - 1), rtol=1e-8)
    np.testing.assert_allclose(columns[3], golden["posterior_mean_coef1"], rtol=1e-8)
    np.testing.assert_allclose(columns[4], golden["posterior_mean_coef2"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(columns[5], np.log(golden["betas"]), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(columns[6], golden["posterior_log_variance_clipped"], rtol=1e-8)


@pytest.mark.shared
def test_scales_share_their_convolutions_as_upstream_s_do(shared: Path, parts: Arrays) -> None:
    for name, found in (("tiny_config.json", "phis6"), ("full_facts.json", "phis10")):
        golden = json.loads((shared / "golden" / "varsr" / name).read_text())["phi_index_per_scale"]
        assert parts[found].tolist() == golden


@pytest.mark.shared
@pytest.mark.parametrize("limits", ["k0_p0.0", "k5_p0.0", "k0_p0.6", "k5_p0.6", "k1_p0.75", "k20_p0.75"])
def test_the_same_codes_may_be_chosen_and_the_same_seed_chooses_the_same(
    parts: Arrays, tiny: Arrays, limits: str
) -> None:
    np.testing.assert_array_equal(parts[f"samp.kept.{limits}"], tiny[f"samp.kept.{limits}"][0])
    np.testing.assert_array_equal(parts[f"samp.idx.{limits}"], tiny[f"samp.idx.{limits}"][0])


@pytest.mark.shared
@pytest.mark.parametrize("fix", ["adain", "wavelet"])
def test_a_colour_fix_gives_upstream_s_bytes(parts: Arrays, tiny: Arrays, fix: str) -> None:
    assert_levels(parts[f"greedy.{fix}_u8"], tiny[f"greedy.{fix}_u8"], share=1e-4, most=1)


@pytest.mark.shared
def test_a_tile_s_weights_are_upstream_s(parts: Arrays, mid: Arrays) -> None:
    np.testing.assert_allclose(parts["weights"], mid["tile.weights_1d_row"], rtol=1e-12)


# ---------------------------------------------------------------------------------------------- the whole, small


@pytest.mark.shared
@pytest.mark.parametrize("scale", SCALES)
def test_each_scale_of_the_small_network_is_upstream_s(small: Arrays, tiny: Arrays, scale: int) -> None:
    last = slice(-3 if scale == 0 else None, None)  # of the first call's tokens, the golden file holds the last three
    np.testing.assert_array_equal(small[f"greedy.idx.{scale}"], tiny[f"greedy.idx.{scale}"][0])
    tail = "_tail" if scale == 0 else ""
    assert_close(small[f"greedy.x_in.{scale}"][:, last], tiny[f"greedy.x_in.{scale}{tail}"])
    assert_close(small[f"greedy.x_out.{scale}"][:, last], tiny[f"greedy.x_out.{scale}"])
    stored_in_halves = tiny[f"greedy.logits_raw.{scale}"].dtype == np.float16
    for name, found in (("logits_raw", small[f"greedy.logits_raw.{scale}"]),
                        ("logits_guided", small[f"greedy.logits_guided.{scale}"][None])):  # fmt: skip
        golden = tiny[f"greedy.{name}.{scale}"]
        assert np.abs(found - golden).max() <= (2e-2 if stored_in_halves else 1e-4)
    assert_close(small[f"greedy.fhat.{scale}"], tiny[f"greedy.fhat.{scale}"])


@pytest.mark.shared
def test_the_small_network_s_picture_is_upstream_s(small: Arrays, tiny: Arrays) -> None:
    assert_close(small["greedy.fhat_final"], tiny["greedy.fhat_final"])
    assert_close(small["greedy.img01"], tiny["greedy.img01"])
    assert_levels(small["greedy.img_u8"], tiny["greedy.img_u8"], share=1e-3, most=1)


@pytest.mark.shared
def test_codes_that_are_drawn_are_upstream_s_from_the_same_seed(small: Arrays, tiny: Arrays) -> None:
    for scale in SCALES:
        np.testing.assert_array_equal(small[f"sampled.idx.{scale}"], tiny[f"sampled.idx.{scale}"][0])
    assert_close(small["sampled.fhat_final"], tiny["sampled.fhat_final"])
    assert np.abs(small["sampled.img01"] - tiny["sampled.img01"]).max() < 5e-4  # stored as float16


# ---------------------------------------------------------------------------------------------- the whole, mid


@pytest.mark.shared
@pytest.mark.timeout(300)
def test_upstream_s_512_path_is_repeated_in_every_code_and_value(square: Arrays, mid: Arrays) -> None:
    np.testing.assert_array_equal(square["idx"], mid["e2e512.idx.row0"])
    assert_close(square["latents"], mid["e2e512.fhat_decoded"])
    assert_close(square["con"][:, 10:14, 10:14], mid["e2e512.con_crop"])
    assert_close(square["image"][:, 192:256, 192:256], mid["e2e512.img01_crop"])
    crop = square["out"][160:352, 160:352]
    assert_levels(crop, mid["e2e512.out_u8_crop_y160_x160_192"], share=1e-3, most=3)
    means = square["out"].reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(means - mid["e2e512.out_block8_mean"]).max() < 0.2  # stored as float16
    print(f"512 path: {square['seconds']:.1f} s, {square['peak_mb']:.0f} MB")


@pytest.mark.shared
@pytest.mark.timeout(400)
def test_upstream_s_tiles_are_repeated_in_every_code_and_value(
    kit: Kit, mid_files: dict[str, str], mid: Arrays, tmp_path: Path
) -> None:
    path = tmp_path / "picture.npy"
    np.save(path, mid["tile.lr_u8"])
    found = kit("mid", files=mid_files, picture=str(path), tiled=True)
    np.testing.assert_array_equal(found["idx"], np.concatenate([mid["tile.idx.row0"], mid["tile.idx.row1"]]))
    corners = found["latents"].reshape(2, 2, 32, 32, 32)[:, :, :4]
    off = np.abs(corners - mid["tile.fhat_tiles_corner"])
    # The refiner's first step multiplies a rounding by 20,291: a few values in ten thousand show it.
    assert (off > CLOSE).mean() < 1e-3
    assert off.max() < 5e-4
    assert_close(found["blended"], mid["tile.fhat_decoded"], 1e-3)  # stored as float16
    assert_close(found["image"][:, 256:320, 300:364], mid["tile.img01_crop"])
    assert found["out"].shape == (524, 600, 3)
    assert_levels(found["out"][160:352, 160:352], mid["tile.out_u8_crop_y160_x160_192"], share=1e-3, most=3)
    print(f"four tiles: {found['seconds']:.1f} s, {found['peak_mb']:.0f} MB")


def recorded(path: Path, *, columns: int, rows: int) -> Path:
    """The refiner's noise of upstream's run, tile by tile; a row of tiles was one batch, whose first half counts."""
    tile = SIDE**2
    drawn = [
        np.random.RandomState(77000 + draw).standard_normal(((2 if draw else 1) * columns * tile, CHANNELS))
        for draw in range(10)
    ]
    row = [draw[column * tile : (column + 1) * tile] for column in range(columns) for draw in drawn]
    np.save(path, np.array(row * rows, np.float32))
    return path


@pytest.mark.shared
@pytest.mark.timeout(400)
def test_upstream_s_tiled_picture_comes_back_over_the_wire(
    running_backend: Callable[..., Any],
    backend_python: Callable[[str], Path],
    settings: Settings,
    mid_files: dict[str, str],
    mid: Arrays,
    square: Arrays,
    tmp_path: Path,
) -> None:
    from upx.catalog import Catalog

    with running_backend(Catalog(settings).backend("varsr"), backend_python("varsr")) as bench:
        bench.host.timeout = 300.0
        noise = recorded(tmp_path / "tiles.npy", columns=2, rows=2)
        bench.host.load("varsr", key="tiles", files=mid_files, noise_file=str(noise))
        (tiled,) = upscale(bench, mid["tile.lr_u8"], seeds=(5,), mode="tiles", cfg=7.0)
        noise = recorded(tmp_path / "square.npy", columns=1, rows=1)
        bench.host.load("varsr", key="square", files=mid_files, noise_file=str(noise))
        (squeezed,) = upscale(bench, mid["e2e512.lr_u8"], seeds=(5,), mode="512")
    assert_levels(tiled[160:352, 160:352], mid["tile.out_u8_crop_y160_x160_192"], share=1e-3, most=3)
    blocks = tiled[:520].reshape(65, 8, 75, 8, 3).mean(axis=(1, 3))
    assert np.abs(blocks - mid["tile.out_block8_mean"]).max() < 0.2  # stored as float16
    # Upstream leaves the square as it is; its picture is met above. Resized by the environment's own Pillow: the host's
    # is a newer one, which rounds otherwise.
    assert_levels(squeezed, square["back"], share=1e-3, most=3)
