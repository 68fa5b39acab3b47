"""Three networks whose pins exclude each other, in one session: jobs interleaved at random, memory watched.

Runs for five minutes, for ten seconds a count below ten. HiT-SR and VARSR have weights from recipes; TSD-SR's small
ones lie in UPX_SHARED (../shared), and without that folder it is left out, which is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
KITS = ROOT / "tests" / "backends"
sys.path.insert(0, str(KITS))

import hitsr_kit  # noqa: E402
import numpy as np  # noqa: E402

from upx.config import Settings  # noqa: E402
from upx.host import Host  # noqa: E402
from upx.jobs import JobOptions  # noqa: E402
from upx.routes import Request  # noqa: E402
from upx.workers.registry import list_workers  # noqa: E402

if TYPE_CHECKING:
    from upx.session import Session

FULL_S, FULL_COUNT, EACH_S = 300.0, 10, 10.0
# A worker may grow by this between the second and the last third of the run: allocators keep what they once needed.
GROWTH, SLACK = 1.03, 24 << 20
VARSR = {
    "sides": [1, 2, 3, 4, 6, 8], "vocabulary": 128, "latent": 8, "vae_width": 8, "groups": 4, "width": 32, "depth": 3,
    "heads": 2, "conditioner": [8, 12, 16, 24, 40], "refiner_width": 48, "refiner_depth": 2, "refiner_steps": 4,
}  # fmt: skip
TSDSR = {
    "transformer/diffusion_pytorch_model.safetensors": "sd3_tiny/transformer/diffusion_pytorch_model.safetensors",
    "transformer/config.json": "sd3_tiny/transformer/config.json",
    "vae/diffusion_pytorch_model.safetensors": "sd3_tiny/vae/diffusion_pytorch_model.safetensors",
    "vae/config.json": "sd3_tiny/vae/config.json",
    "transformer.safetensors": "lora/transformer.safetensors",
    "vae.safetensors": "lora/vae.safetensors",
}
EMBEDS = """
import sys, torch
from safetensors.torch import save_file
for name in ("prompt_embeds", "pool_embeds"):
    tensor = torch.load(f"{sys.argv[1]}/{name}.pt", weights_only=True).contiguous()
    save_file({"tensor": tensor}, f"{sys.argv[2]}/{name}.safetensors")
"""


@dataclass
class Network:
    """One network's session, the pictures it gets, and what came of each."""

    name: str
    session: Session
    pictures: list[np.ndarray]
    digests: dict[int, str] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    jobs: int = 0

    def run(self, number: int) -> str:
        """One job; what is wrong with it, or nothing."""
        result = self.session.run(self.pictures[number], None, JobOptions(seed=number))
        self.jobs += 1
        digest = hashlib.sha256(result.output.tobytes()).hexdigest()
        return "" if self.digests.setdefault(number, digest) == digest else f"{self.name}: picture {number} changed"

    def grown(self) -> str:
        """Whether its worker's memory rose; the first third of the run is its own."""
        third = len(self.memory) // 3
        middle, last = statistics.median(self.memory[third : 2 * third]), statistics.median(self.memory[2 * third :])
        print(f"{self.name}: {self.jobs} jobs, {middle / 1e6:.0f} MB, then {last / 1e6:.0f} MB")
        return f"{self.name} grew" if last > middle * GROWTH + SLACK else ""


def hitsr(folder: Path, _python: Path) -> None:
    hitsr_kit.write_safetensors(folder / "model.safetensors", hitsr_kit.recipe("srf", 4))


def varsr(folder: Path, python: Path) -> None:
    (folder / "config.json").write_text(json.dumps(VARSR))
    asked = folder / "request.json"
    asked.write_text(json.dumps({"do": "weights", "folder": str(folder)}))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'protocol'}:{ROOT / 'backends'}"}
    subprocess.run([python, "-P", KITS / "varsr_kit.py", asked, folder / "none.npz"], env=environ, check=True)
    for role, name in (("var", "VARSR"), ("vqvae", "VQVAE")):
        (folder / f"{role}.safetensors").rename(folder / f"{name}.safetensors")


def tsdsr(folder: Path, python: Path) -> None:
    golden = shared() / "golden" / "tsdsr"
    for name, source in TSDSR.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(golden / source)
    subprocess.run([python, "-I", "-c", EMBEDS, golden / "embeds", folder], check=True)


def shared() -> Path:
    return Path(os.environ.get("UPX_SHARED") or ROOT.parent / "shared").absolute()


MAKERS = {"hitsr": (hitsr, "hitsr-srf-x4", {}), "varsr": (varsr, "varsr", {}),
          "tsdsr": (tsdsr, "tsdsr", {"process_size": 64})}  # fmt: skip


def opened(host: Host, name: str, folder: Path, rng: random.Random) -> Network:
    make, model, params = MAKERS[name]
    folder.mkdir()
    make(folder, host.setup(name).python)
    request = Request(model=model, weights=folder, device="cpu", workers=1, params=params, accept_licence=True)
    draw = np.random.default_rng(rng.randrange(2**32))
    pictures = [draw.integers(0, 256, (rng.randrange(8, 60), rng.randrange(8, 60), 3), np.uint8) for _ in range(6)]
    return Network(name, host.open(request), pictures)


def soak(networks: list[Network], settings: Settings, seconds: float, rng: random.Random) -> list[str]:
    problems: list[str] = []
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(len(networks)) as pool:
        while time.monotonic() < until:
            chosen = [rng.choice(networks) for _ in networks]
            jobs = [pool.submit(network.run, rng.randrange(len(network.pictures))) for network in chosen]
            problems += [problem for job in jobs if (problem := job.result())]
            memory = {worker.backend: worker.memory for worker in list_workers(settings)}
            for network in networks:
                if memory.get(network.name):
                    network.memory.append(memory[network.name])
    return problems + [problem for network in networks if (problem := network.grown())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=FULL_COUNT)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    seconds = FULL_S if arguments.count >= FULL_COUNT else EACH_S * arguments.count
    names = list(MAKERS)
    if not shared().is_dir():
        print(f"no {shared()}: tsdsr, whose small weights lie there, is left out")
        names.remove("tsdsr")
    print(f"seed {seed}, {seconds:g} s", flush=True)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="upx-soak-networks-") as home, ExitStack() as stack:
        settings = Settings.from_env({**os.environ, "UPX_HOME": home})
        host = stack.enter_context(Host(settings))
        networks = [opened(host, name, Path(home, f"weights-{name}"), rng) for name in names]
        for network in networks:
            network.session.warm()
        problems = soak(networks, settings, seconds, rng)
    print("\n".join(problems), end="\n" if problems else "")
    print(f"{sum(network.jobs for network in networks)} jobs", flush=True)
    failed = len(problems)
    print(f"{len(names) * 2 - min(failed, len(names) * 2)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
